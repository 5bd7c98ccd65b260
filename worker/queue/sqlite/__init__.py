"""The SQLite backend: one file on one machine, for any number of processes.

Begin with `queue.py`. `writer.py` is the thread that owns the connection, and commits the calls of many callers
together; `operations.py` has the operations, with SQL in files beside it. `file.py` opens the file and creates the
schema, `clock.py` gives all processes one time, `watching.py` notices new changes.
"""

from worker.queue.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
