"""The SQLite backend: one file, one machine, any number of processes.

Begin with `queue.py`. `writer.py` is the thread that owns the connection, and commits the calls of many callers
together; `operations.py` has what it runs, with SQL in files of its own. `file.py` opens the file and makes the
schema, `clock.py` gives all processes one time, `watching.py` hears of new changes.
"""

from worker.queue.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
