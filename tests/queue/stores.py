"""The stores that several worker processes can share, each empty."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.queue.postgres_server import lent_database
from tests.queue.redis_server import a_place


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[str]:
    yield f"sqlite:///{folder}/queue.db"


@asynccontextmanager
async def _postgres(_: Path) -> AsyncIterator[str]:
    async with lent_database() as url:
        yield url


@asynccontextmanager
async def _redis(_: Path) -> AsyncIterator[str]:
    async with a_place() as place:
        yield place.url


# Each gets an empty folder, and returns the URL.
STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[str]]] = {
    "postgres": _postgres,
    "redis": _redis,
    "sqlite": _sqlite,
}
