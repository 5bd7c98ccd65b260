"""metasync: keeps the metadata of stored chat completions in line with a durable queue of pending changes."""

from worker.changes import InvalidChange, MetadataChange
from worker.queue import Queue, QueueError, open_queue

__all__ = ["InvalidChange", "MetadataChange", "Queue", "QueueError", "open_queue"]
