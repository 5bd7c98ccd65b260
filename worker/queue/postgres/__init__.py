"""The PostgreSQL backend: many machines, and producers that enqueue in their own transaction.

Begin with `queue.py`, whose calls run the statements of `operations.py`; SQL lies in files of its own.
`connections.py` keeps the pool, `listener.py` hears of new changes, `floor.py` tells a claim where to begin,
`migrate.py` makes the schema. docs/postgresql.md says what users see.
"""

from worker.queue.postgres.queue import PostgresQueue

__all__ = ["PostgresQueue"]
