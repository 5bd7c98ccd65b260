"""What `metasync doctor` checks: a module for each subject, and the probe that writes.

Begin with `check.py`: a `Check` is one line of the report. `software.py`, `configuration.py`, `store.py`, `network.py`
and `service.py` each yield checks, in this order. `probe.py` finds out what updates do; `keeping.py` and
`restoring.py` put back what it found.
"""
