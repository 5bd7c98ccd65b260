"""The backends that the conformance suite and the model run against: each a queue whose time can be moved."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.queue.postgres_server import StoppedClock, new_database
from tests.queue.redis_server import RedisClock, a_place
from worker.queue import Queue
from worker.queue.memory import MemoryQueue
from worker.queue.postgres import PostgresQueue
from worker.queue.redis import RedisQueue
from worker.queue.sqlite import SqliteQueue

START = 1_700_000_000.0

Advance = Callable[[float], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Clock:
    """A clock that goes when it is told to."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Backend:
    """An open queue, and how time passes for it.

    Args:
        advance: lets so many seconds pass. A store whose clock cannot be replaced makes what it holds older instead.
    """

    queue: Queue
    advance: Advance


@asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[Backend]:
    clock = Clock()
    async with MemoryQueue(clock=clock) as queue:
        yield Backend(queue, clock.advance)


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Backend]:
    clock = Clock()
    async with await SqliteQueue.open(f"sqlite:///{folder}/queue.db", clock=clock) as queue:
        yield Backend(queue, clock.advance)


@asynccontextmanager
async def _redis(_: Path) -> AsyncIterator[Backend]:
    async with a_place() as place:
        clock = RedisClock(place, START)
        await clock.advance(0)
        async with await RedisQueue.open(place.url, functions=clock.FUNCTIONS) as queue:
            yield Backend(queue, clock.advance)


@asynccontextmanager
async def _postgres(_: Path) -> AsyncIterator[Backend]:
    async with (
        new_database() as url,
        StoppedClock.stop(url, at=START) as (clock, url_with_clock),
        await PostgresQueue.open(url_with_clock) as queue,
    ):
        yield Backend(queue, clock.advance)


# Each is given an empty folder.
BACKENDS: dict[str, Callable[[Path], AbstractAsyncContextManager[Backend]]] = {
    "memory": _memory,
    "postgres": _postgres,
    "redis": _redis,
    "sqlite": _sqlite,
}
