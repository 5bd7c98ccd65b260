"""Choose a backend by its URL; import it only when it is used."""

import unicodedata
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from worker.queue.errors import QueueMisnamed
from worker.queue.store import Backend, Store

_EXTRAS = {"asyncpg": "postgres", "redis": "redis"}  # by driver: the extra that installs it


def open_queue(url: str, *, timeout_seconds: float = 10.0, create: bool = True) -> AbstractAsyncContextManager[Store]:
    """Open the queue at this URL, creating or upgrading it if that is safe, and close it at the end.

    What it returns is entered once, with `async with`.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``,
            ``redis://user:password@host:6379/0``, ``rediss://`` for the same with TLS, or ``memory:`` for tests.
        timeout_seconds: for every call to the store.
        create: create a missing queue.

    Raises:
        QueueMisnamed: the URL is invalid, can never name a queue, or (without `create`) names no queue.
        QueueUnavailable: the store does not answer; its subclass `QueueUnusable`: a person must fix it first.
    """
    return _Opening(url, timeout_seconds=timeout_seconds, create=create)


class _Opening(AbstractAsyncContextManager[Store]):
    """Opens a queue when it is entered, and closes it at the end."""

    def __init__(self, url: str, *, timeout_seconds: float, create: bool) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._create = create
        self._is_entered = False
        self._store: Store | None = None

    async def __aenter__(self) -> Store:
        if self._is_entered:
            raise RuntimeError("this open_queue(...) has been entered already: call open_queue for each `async with`")
        self._is_entered = True
        self._store = await open_store(self._url, timeout_seconds=self._timeout_seconds, create=self._create)
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()


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
