"""The SQLite backend: one file, one machine, any number of processes."""

from worker.queue.sqlite.queue import SqliteQueue
from worker.queue.sqlite.statements import migration_sql

__all__ = ["SqliteQueue", "migration_sql"]
