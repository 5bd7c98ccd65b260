"""The PostgreSQL backend: for many machines, and for producers that enqueue in their own transaction.

Begin with `queue.py`, whose calls run the statements of `putting.py`, `operations.py` and others. SQL is in files of
its own. `connections.py` keeps the pool, `listener.py` listens for new changes, `floor.py` says where a claim begins to
look, `migrate.py` makes the schema. docs/postgresql.md is for users.
"""

from worker.queue.postgres.queue import PostgresQueue

__all__ = ["PostgresQueue"]
