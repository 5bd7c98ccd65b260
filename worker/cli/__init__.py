"""The command: a module for each verb, with a dataclass of its arguments and `execute`, which returns an exit code.

Begin with `main.py`, which finds the verb, and `verbs.py`, which names all of them. `flags.py` puts settings beside a
verb's own flags, `session.py` and `job.py` hand them to queue and engine, `exits.py` has the exit codes. `output.py`
writes data to standard output and the rest to standard error.
"""
