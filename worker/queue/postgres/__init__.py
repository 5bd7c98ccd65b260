"""The PostgreSQL backend: many machines, and producers that enqueue in their own transaction."""

from worker.queue.postgres.queue import PostgresQueue
from worker.queue.postgres.statements import migration_sql

__all__ = ["PostgresQueue", "migration_sql"]
