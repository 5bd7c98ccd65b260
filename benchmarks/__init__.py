"""Benchmarks: the cost of a durable update, and how close flow control comes to a limit.

Begin with `cases.py`: each case is one benchmark of `make bench`, with its contenders. `running.py` starts and measures
a contender, `report.py` and `chart.py` write docs/performance.md. `flow.py` is `make bench-flow`, `stores.py` is `make
bench-queue`, `profile.py` is `make profile`. Speed is compared within one run, on one machine, as ratios.
"""
