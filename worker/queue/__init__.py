"""The durable queue: one contract, one backend per store, chosen by URL."""

from worker.queue.base import Queue, QueueError, QueueUnavailable, QueueUnusable, QueueUnwritable
from worker.queue.opening import migration_sql, open_queue

__all__ = ["Queue", "QueueError", "QueueUnavailable", "QueueUnusable", "QueueUnwritable", "migration_sql", "open_queue"]
