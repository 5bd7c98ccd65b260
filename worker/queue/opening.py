"""Choose a backend by its URL; import it only when it is used."""

import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.queue.errors import QueueMisnamed
from worker.queue.store import Backend, Store

_EXTRAS = {"asyncpg": "postgres", "redis": "redis"}  # by driver: the extra that installs it


@asynccontextmanager
async def open_queue(url: str, *, timeout_seconds: float = 10.0, create: bool = True) -> AsyncIterator[Store]:
    """Open the queue at this URL, creating or upgrading it if that is safe, and close it at the end.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``,
            ``redis://user:password@host:6379/0``, ``rediss://`` for the same with TLS, or ``memory:`` for tests.
        timeout_seconds: for every call to the store.
        create: create a missing queue.

    Raises:
        QueueMisnamed: the URL is invalid, can never name a queue, or (without `create`) names no queue.
        QueueUnavailable: the store does not answer; its subclass `QueueUnusable`: a person must fix it first.
    """
    store = await open_store(url, timeout_seconds=timeout_seconds, create=create)
    try:
        yield store
    finally:
        await store.close()


async def open_store(url: str, *, timeout_seconds: float, create: bool = True) -> Store:
    """Open the queue; the caller must close it. See `open_queue`."""
    url = _cleaned(url)
    return await _backend(url).open(url, timeout_seconds=timeout_seconds, create=create)


def migration_sql(url: str) -> str:
    """Return the SQL or Redis functions that create the queue's schema, to run by hand.

    Raises:
        QueueMisnamed: the URL is invalid, or its store has no schema.
    """
    return _backend(_cleaned(url)).migration_sql()


def _cleaned(url: str) -> str:
    """Strip white space from the URL, such as a newline from a file.

    Raises:
        QueueMisnamed: the URL contains a control character.
    """
    url = url.strip()
    for character in url:
        if unicodedata.category(character) == "Cc":  # do not show the URL: it may contain a password
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
            from worker.queue.sqlite import SqliteQueue  # noqa: PLC0415 -- apsw is loaded only when needed

            return SqliteQueue
        case "postgresql" | "postgres":
            from worker.queue.postgres import PostgresQueue  # noqa: PLC0415 -- asyncpg comes with an extra

            return PostgresQueue
        case "redis" | "rediss":
            from worker.queue.redis import RedisQueue  # noqa: PLC0415 -- redis comes with an extra

            return RedisQueue
        case "memory":
            from worker.queue.memory import MemoryQueue  # noqa: PLC0415 -- for tests only

            return MemoryQueue
        case _:  # do not show the URL: it may contain a password
            raise QueueMisnamed("the queue URL must start with sqlite:///, postgresql://, redis:// or rediss://")
