"""The PostgreSQL backend: many machines, and producers that enqueue in their own transaction."""

from worker.queue.postgres.queue import PostgresQueue

__all__ = ["PostgresQueue"]
