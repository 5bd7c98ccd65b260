"""Choosing a backend by its URL; a backend is imported only when it is used."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from worker.queue.base import Queue, QueueUnusable

# The URL itself is not shown: it may hold a password.
_UNKNOWN_SCHEME = "the queue URL must start with sqlite:///, postgresql://, redis:// or rediss://"


@asynccontextmanager
async def open_queue(url: str, *, timeout_seconds: float = 10.0) -> AsyncIterator[Queue]:
    """Open the queue at this URL, creating or upgrading it where that is safe, and close it in the end.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``,
            ``redis://user:password@host:6379/0``, ``rediss://`` likewise with TLS, or ``memory:`` for tests.
        timeout_seconds: of every call to the store.

    Raises:
        QueueUnusable: the URL is not one of ours, or what it names cannot serve as a queue.
        QueueUnavailable: the store does not answer.
    """
    match _scheme(url):
        case "sqlite":
            from worker.queue.sqlite import SqliteQueue  # noqa: PLC0415 -- apsw is loaded only where it is used

            queue: Queue = await SqliteQueue.open(url, timeout_seconds=timeout_seconds)
        case "postgresql" | "postgres":
            with _driver("asyncpg", extra="postgres"):
                from worker.queue.postgres import PostgresQueue  # noqa: PLC0415 -- asyncpg comes with an extra

            queue = await PostgresQueue.open(url, timeout_seconds=timeout_seconds)
        case "redis" | "rediss":
            with _driver("redis", extra="redis"):
                from worker.queue.redis import RedisQueue  # noqa: PLC0415 -- redis comes with an extra

            queue = await RedisQueue.open(url, timeout_seconds=timeout_seconds)
        case "memory":
            from worker.queue.memory import MemoryQueue  # noqa: PLC0415 -- likewise

            queue = MemoryQueue()
        case _:
            raise QueueUnusable(_UNKNOWN_SCHEME)
    async with queue:
        yield queue


def migration_sql(url: str) -> str:
    """What creates the queue's schema at this URL, for people who run it by hand: SQL, or Redis functions.

    Raises:
        QueueUnusable: the URL is not one of ours, or its store has no schema.
    """
    match _scheme(url):
        case "sqlite":
            from worker.queue import sqlite  # noqa: PLC0415 -- apsw is loaded only where it is used

            return sqlite.migration_sql()
        case "postgresql" | "postgres":
            with _driver("asyncpg", extra="postgres"):
                from worker.queue import postgres  # noqa: PLC0415 -- asyncpg comes with an extra

            return postgres.migration_sql()
        case "redis" | "rediss":
            with _driver("redis", extra="redis"):
                from worker.queue import redis  # noqa: PLC0415 -- redis comes with an extra

            return redis.migration_sql()
        case _:
            raise QueueUnusable(_UNKNOWN_SCHEME)


@contextmanager
def _driver(name: str, *, extra: str) -> Iterator[None]:
    """Say how to install the driver of a backend, where importing that shows that it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise QueueUnusable(f"this queue needs {name}: pip install metasync[{extra}]") from None


def _scheme(url: str) -> str:
    return url.partition(":")[0]
