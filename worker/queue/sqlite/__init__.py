"""The SQLite backend: one file, one machine, any number of processes."""

from worker.queue.sqlite.queue import SqliteQueue

__all__ = ["SqliteQueue"]
