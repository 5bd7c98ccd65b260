"""The stores that the suite runs against, each with a clock that can be moved."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from tests.queue.postgres_server import StoppedClock, lent_database, save
from tests.queue.redis_server import RedisClock, a_place
from worker.queue import Store
from worker.queue.memory import MemoryQueue
from worker.queue.postgres import PostgresQueue
from worker.queue.redis import RedisQueue
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.clock import Clocks

START = 1_700_000_000.0
PATIENCE_SECONDS = 60.0  # with a server: the machine may be busy with other things

Advance = Callable[[float], Coroutine[Any, Any, None]]
PutBack = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Clock:
    """A clock that the test moves."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Backend:
    """An open queue, and how time passes for it.

    Args:
        another: opens the same store as another worker; None for a store in memory.
        advance: lets so many seconds pass.
        save: saves the content of the store, and returns a function that restores it, as a replica's promotion does.
            The clock stays as it is.
    """

    queue: Store
    another: Callable[[], AbstractAsyncContextManager[Store]]
    advance: Advance
    save: Callable[[], Coroutine[Any, Any, PutBack]]


def _opened(open_it: Callable[[], Awaitable[Store]]) -> Callable[[], AbstractAsyncContextManager[Store]]:
    @asynccontextmanager
    async def another() -> AsyncIterator[Store]:
        queue = await open_it()
        try:
            yield queue
        finally:
            await queue.close()

    return another


@asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[Backend]:
    clock = Clock()
    async with MemoryQueue(clock=clock) as queue:
        yield Backend(queue, lambda: nullcontext(queue), clock.advance, partial(_save_memory, queue))


async def _save_memory(queue: MemoryQueue) -> PutBack:
    def contents() -> dict[str, object]:
        return deepcopy({name: value for name, value in vars(queue).items() if name not in {"_clock", "_work"}})

    saved = contents()

    async def put_back() -> None:
        vars(queue).update(deepcopy(saved))

    return put_back


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Backend]:
    clock = Clock()
    path = folder / "queue.db"
    open_it = partial(SqliteQueue.open, f"sqlite:///{path}", clocks=Clocks(clock, clock, "boot"))
    async with await open_it() as queue:
        yield Backend(queue, _opened(open_it), clock.advance, partial(_save_sqlite, path))


async def _save_sqlite(path: Path) -> PutBack:
    saved = apsw.Connection(":memory:")

    def copy(source: apsw.Connection, target: apsw.Connection) -> None:
        with target.backup("main", source, "main") as backup:
            backup.step()

    with closing(apsw.Connection(str(path))) as now:
        copy(now, saved)

    async def put_back() -> None:
        with closing(apsw.Connection(str(path))) as now:
            copy(saved, now)

    return put_back


@asynccontextmanager
async def _redis(_: Path) -> AsyncIterator[Backend]:
    async with a_place() as place:
        clock = RedisClock(place, START)
        await clock.advance(0)
        open_it = partial(RedisQueue.open, place.url, timeout_seconds=PATIENCE_SECONDS, functions=clock.FUNCTIONS)
        async with await open_it() as queue:
            yield Backend(queue, _opened(open_it), clock.advance, place.save)


@asynccontextmanager
async def _postgres(_: Path) -> AsyncIterator[Backend]:
    async with lent_database() as url, StoppedClock.stop(url, at=START) as clock:
        open_it = partial(PostgresQueue.open, url, timeout_seconds=PATIENCE_SECONDS)
        async with await open_it() as queue:
            yield Backend(queue, _opened(open_it), clock.advance, partial(save, url))


# Each gets an empty folder.
BACKENDS: dict[str, Callable[[Path], AbstractAsyncContextManager[Backend]]] = {
    "memory": _memory,
    "postgres": _postgres,
    "redis": _redis,
    "sqlite": _sqlite,
}
