"""Choosing a backend by its URL; a backend is imported only when it is used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.queue.base import Queue, QueueUnusable

# The URL itself is not shown: it may hold a password.
_UNKNOWN_SCHEME = "the queue URL must start with sqlite:///"


@asynccontextmanager
async def open_queue(url: str, *, timeout_seconds: float = 10.0) -> AsyncIterator[Queue]:
    """Open the queue at this URL, creating or upgrading it where that is safe, and close it in the end.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or ``memory:`` for tests.
        timeout_seconds: of every call to the store.

    Raises:
        QueueUnusable: the URL is not one of ours, or what it names cannot serve as a queue.
        QueueUnavailable: the store does not answer.
    """
    match _scheme(url):
        case "sqlite":
            from worker.queue.sqlite import SqliteQueue  # noqa: PLC0415 -- apsw is loaded only where it is used

            queue: Queue = await SqliteQueue.open(url, timeout_seconds=timeout_seconds)
        case "memory":
            from worker.queue.memory import MemoryQueue  # noqa: PLC0415 -- likewise

            queue = MemoryQueue()
        case _:
            raise QueueUnusable(_UNKNOWN_SCHEME)
    async with queue:
        yield queue


def migration_sql(url: str) -> str:
    """The statements that create the queue's schema at this URL, for people who run them by hand.

    Raises:
        QueueUnusable: the URL is not one of ours, or its store has no schema.
    """
    if _scheme(url) == "sqlite":
        from worker.queue.sqlite import migration_sql  # noqa: PLC0415 -- apsw is loaded only where it is used

        return migration_sql()
    raise QueueUnusable(_UNKNOWN_SCHEME)


def _scheme(url: str) -> str:
    return url.partition(":")[0]
