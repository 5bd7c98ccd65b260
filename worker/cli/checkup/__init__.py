"""The checks of `metasync doctor`: one module per subject, and the write probe.

Begin with `check.py`: a `Check` is one line of the report. `software.py`, `configuration.py`, `store.py`, `network.py`
and `service.py` each yield checks, in this order. `probe.py` finds out how updates behave; `keeping.py` and
`restoring.py` restore the metadata afterwards.
"""
