"""The `metasync` command: one module per verb, with a dataclass of arguments and `execute`.

Begin with `main.py`, which finds the verb, and `verbs.py`, which lists all of them. `flags.py` adds settings to a
verb's own flags, `session.py` and `job.py` pass them to queue and engine, `exits.py` has the exit codes. `output.py`
writes data to standard output and the rest to standard error.
"""
