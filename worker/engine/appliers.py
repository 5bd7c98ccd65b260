"""A pool of applier tasks: as many as may be at work at once, and more while some of them only wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from worker.engine.work import Work


class ApplierPool:
    """Feeds buffered work to tasks of its own, which live as long as the group.

    Args:
        size: most tasks at work at any time; parked ones do not count.
        handle: what a task does with one work.
    """

    def __init__(self, group: asyncio.TaskGroup, size: int, handle: Callable[[Work], Awaitable[None]]) -> None:
        self._group = group
        self._size = size
        self._handle = handle
        self._buffer: asyncio.Queue[Work] = asyncio.Queue()  # bounded by whoever submits: see Reader
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._idle = 0

    def __repr__(self) -> str:
        return f"<ApplierPool [{self._running - self._idle} at work, {self._buffer.qsize()} buffered]>"

    def submit(self, work: Work) -> None:
        """Let a task take it as soon as one is free."""
        self._buffer.put_nowait(work)
        self._top_up()

    def take_back(self) -> list[Work]:
        """What no task has taken yet, and now none will."""
        return [self._buffer.get_nowait() for _ in range(self._buffer.qsize())]

    @contextmanager
    def parked(self) -> Iterator[None]:
        """While in here, the current task only waits: another one may work in its place."""
        self._running -= 1
        self._top_up()
        try:
            yield
        finally:
            self._running += 1

    def close(self) -> None:
        """Cancel the tasks."""
        for task in self._tasks:
            task.cancel()

    def _top_up(self) -> None:
        if self._running < self._size and self._buffer.qsize() > self._idle:
            self._running += 1
            task = self._group.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while self._running <= self._size:  # more when one that was parked came back: then the first to finish goes
            self._idle += 1
            try:
                work = await self._buffer.get()
            finally:
                self._idle -= 1
            await self._handle(work)
        self._running -= 1
