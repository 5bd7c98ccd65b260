"""The Redis and Valkey backend: many machines, one server."""

from worker.queue.redis.library import migration_sql
from worker.queue.redis.queue import RedisQueue

__all__ = ["RedisQueue", "migration_sql"]
