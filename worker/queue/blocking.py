"""The queue for code that does not await: the store lives on an event loop in a thread of its own."""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from worker.changes.mapping import Given
from worker.queue.batch import EVERYTHING, Batch, PendingSelection, Withdrawn
from worker.queue.errors import QueueUnusable
from worker.queue.letters import DeadLetter, DeadSelection, Revived
from worker.queue.opening import open_queue
from worker.queue.pending import QueuedChange, QueueStatus, Stored
from worker.queue.pieces import Taken, pieces
from worker.queue.store import Store

T = TypeVar("T")

_EVERY_LETTER = DeadSelection()
_READ_AT_ONCE = 100


def open_queue_sync(url: str, *, timeout_seconds: float = 10.0) -> "SyncQueue":
    """Open the queue for code that does not await; to be closed, or used as a context manager.

    Args:
        url: as for `open_queue`.
        timeout_seconds: of every call to the store.

    Raises:
        QueueMisnamed: the URL is not one of ours, or what it names can never serve as a queue.
        QueueUnusable: somebody has to see to it first: to a password, a right, a folder.
        QueueUnavailable: the store does not answer.
    """
    return SyncQueue(open_queue(url, timeout_seconds=timeout_seconds))


class SyncQueue:
    """A producer's queue whose calls block until they are done. Made by `open_queue_sync`.

    Any number of threads may use one object, and so may code that runs within somebody's event loop: that loop stands
    still meanwhile. A process that was forked has to open its own.
    """

    def __init__(self, opening: AbstractAsyncContextManager[Store]) -> None:
        self._process = os.getpid()
        self._opening = opening
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="metasync queue", daemon=True)
        self._thread.start()
        # What nobody closes ends with the object, or with the process: what was promised is in the store.
        self._end = weakref.finalize(self, _end, self._loop, self._thread, self._process)
        try:
            self._store = self._run(opening.__aenter__())
        except BaseException:
            self._end()
            raise

    def __repr__(self) -> str:
        return f"<SyncQueue {self._store!r}>"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the person who runs the store should know about it, a sentence each."""
        return self._store.warnings

    def put(self, changes: Given | Iterable[Given], *, batch: str | None = None, urgent: bool = False) -> Stored:
        """Store the changes; see `Queue.put`. An iterable is read in the thread that calls."""
        with Taken() as taken:
            for piece in pieces(changes):
                taken.add(self._run(self._store.put(piece, batch=batch, urgent=urgent)))
        return taken.stored

    def batches(self, name: str | None = None) -> list[Batch]:
        """The batches that there are; see `Batches.batches`."""
        return self._run(self._store.batches(name))

    def pending_changes(self, selection: PendingSelection = EVERYTHING) -> Iterator[QueuedChange]:
        """Read what is pending, piece by piece; see `Store.pending_changes`."""
        return self._read(self._store.pending_changes(selection))

    def withdraw(self, selection: PendingSelection) -> Withdrawn:
        """Take pending changes back; see `Batches.withdraw`."""
        return self._run(self._store.withdraw(selection))

    def status(self) -> QueueStatus:
        """Counts and ages, for people."""
        return self._run(self._store.status())

    def dead_letters(self, selection: DeadSelection = _EVERY_LETTER) -> Iterator[DeadLetter]:
        """Read the letters that match, oldest first, piece by piece."""
        return self._read(self._store.dead_letters(selection))

    def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again; see `DeadLetters.retry_dead`."""
        return self._run(self._store.retry_dead(selection))

    def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; returns how many there were."""
        return self._run(self._store.purge_dead(selection))

    def close(self) -> None:
        """Finish what is under way and let go of the store."""
        if not self._end.alive:
            return
        try:
            if os.getpid() == self._process:
                self._run(self._opening.__aexit__(None, None, None))
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def some() -> list[T]:
            found: list[T] = []
            async for each in source:
                found.append(each)
                if len(found) == _READ_AT_ONCE:
                    break
            return found

        while found := self._run(some()):
            yield from found

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done in the other thread, and wait."""
        if os.getpid() != self._process:
            work.close()
            raise QueueUnusable("this queue was opened before the process was forked: open another one in each process")
        if not self._end.alive:
            work.close()
            raise RuntimeError("the queue is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the queue was closed meanwhile") from None
        except BaseException:
            future.cancel()  # somebody has pressed Ctrl-C: what nobody waits for is not to go on
            raise


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped; what nobody waits for any longer is cancelled."""
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """Stop the loop and its thread; in a forked process there is none."""
    if os.getpid() != process:
        return
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:  # which collects garbage, too
        thread.join()
