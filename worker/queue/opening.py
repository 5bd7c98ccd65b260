"""Choosing a backend by its URL; a backend is imported only when it is used."""

import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.queue.errors import QueueMisnamed
from worker.queue.store import Backend, Store

_EXTRAS = {"asyncpg": "postgres", "redis": "redis"}  # by the driver that each brings


@asynccontextmanager
async def open_queue(url: str, *, timeout_seconds: float = 10.0, create: bool = True) -> AsyncIterator[Store]:
    """Open the queue at this URL, creating or upgrading it where that is safe, and close it in the end.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``,
            ``redis://user:password@host:6379/0``, ``rediss://`` likewise with TLS, or ``memory:`` for tests.
        timeout_seconds: of every call to the store.
        create: make the queue where there is none.

    Raises:
        QueueMisnamed: the URL is not one of ours, or what it names can never serve as a queue, or is none.
        QueueUnavailable: the store does not answer; or, as `QueueUnusable`, somebody has to see to it first.
    """
    store = await open_store(url, timeout_seconds=timeout_seconds, create=create)
    try:
        yield store
    finally:
        await store.close()


async def open_store(url: str, *, timeout_seconds: float, create: bool = True) -> Store:
    """Open the queue, to be closed by the caller; see `open_queue`."""
    url = _cleaned(url)
    return await _backend(url).open(url, timeout_seconds=timeout_seconds, create=create)


def migration_sql(url: str) -> str:
    """What creates the queue's schema at this URL, for people who run it by hand: SQL, or Redis functions.

    Raises:
        QueueMisnamed: the URL is not one of ours, or its store has no schema.
    """
    return _backend(_cleaned(url)).migration_sql()


def _cleaned(url: str) -> str:
    """The URL without what may have come along where it was copied, or read from a file: a newline at its end, say.

    Raises:
        QueueMisnamed: there is such a thing within.
    """
    url = url.strip()
    for character in url:
        if unicodedata.category(character) == "Cc":  # the URL itself is not shown: it may hold a password
            raise QueueMisnamed(f"the queue URL holds a control character (U+{ord(character):04X}): take it out")
    return url


def _backend(url: str) -> type[Backend]:
    try:
        return _imported(url.partition(":")[0])
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        extra = _EXTRAS[error.name]
        raise QueueMisnamed(f"this queue needs {error.name}: install metasync with its extra {extra}") from None


def _imported(scheme: str) -> type[Backend]:
    match scheme:
        case "sqlite":
            from worker.queue.sqlite import SqliteQueue  # noqa: PLC0415 -- apsw is loaded only where it is used

            return SqliteQueue
        case "postgresql" | "postgres":
            from worker.queue.postgres import PostgresQueue  # noqa: PLC0415 -- asyncpg comes with an extra

            return PostgresQueue
        case "redis" | "rediss":
            from worker.queue.redis import RedisQueue  # noqa: PLC0415 -- redis comes with an extra

            return RedisQueue
        case "memory":
            from worker.queue.memory import MemoryQueue  # noqa: PLC0415 -- likewise

            return MemoryQueue
        case _:  # the URL itself is not shown: it may hold a password
            raise QueueMisnamed("the queue URL must start with sqlite:///, postgresql://, redis:// or rediss://")
