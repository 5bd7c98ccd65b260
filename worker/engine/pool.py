"""The pool of applier tasks: as many as may be at work at once, and more while some of them are parked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from worker.engine.work import Work


class ApplierPool:
    """Feeds buffered work to its tasks, which live as long as `run`.

    Args:
        size: most tasks at work at any time; parked ones do not count.
        handle: what a task does with one work.
    """

    def __init__(self, size: int, handle: Callable[[Work], Awaitable[None]]) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._size = size
        self._handle = handle
        self._buffer: deque[Work] = deque()  # the reader bounds it
        self._idle: deque[asyncio.Future[None]] = deque()  # one for each task that waits for work
        self._running = 0

    def __repr__(self) -> str:
        return f"<ApplierPool [{self._running - len(self._idle)} at work, {len(self._buffer)} buffered]>"

    async def run(self) -> None:
        """Let tasks work until this is cancelled, which cancels them, too."""
        async with asyncio.TaskGroup() as self._group:
            for _ in range(len(self._buffer)):
                self._top_up()
            await asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        return len(self._buffer)

    def submit(self, work: Work) -> None:
        """Buffer a work for the next free task."""
        self._buffer.append(work)
        if self._idle or self._running < self._size:
            self._top_up()

    def take_back(self) -> list[Work]:
        """Empty the buffer; return the works that no task has taken."""
        works = list(self._buffer)
        self._buffer.clear()
        return works

    @contextmanager
    def parked(self) -> Iterator[None]:
        """A context in which the current task only waits, so that another one may work in its place."""
        self._running -= 1
        self._top_up()
        try:
            yield
        finally:
            self._running += 1

    def _top_up(self) -> None:
        """Wake an idle task, or make a new one, if there is work to take."""
        if not self._buffer or self._group is None:
            return
        while self._idle:
            woken = self._idle.popleft()
            if not woken.done():  # else its task was cancelled
                woken.set_result(None)
                return
        if self._running < self._size:
            self._running += 1
            self._group.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 -- a coroutine of the pool runs in a task
        while self._running <= self._size:  # a parked task that comes back may make it more: the first to finish ends
            while not self._buffer:
                woken = loop.create_future()
                self._idle.append(woken)
                await woken
            work = self._buffer.popleft()
            work.task = task
            try:
                await self._handle(work)
            finally:
                work.task = None
                del work  # a task may be idle for long, and a claim may be large
        self._running -= 1
