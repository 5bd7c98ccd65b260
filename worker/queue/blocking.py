"""The queue for code without asyncio: the store lives on an event loop in its own thread."""

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
from worker.queue.errors import QueueUnavailable, QueueUnusable
from worker.queue.letters import DeadLetter, DeadSelection, Revived
from worker.queue.opening import open_queue
from worker.queue.pending import QueuedChange, QueueStatus, Stored
from worker.queue.pieces import Taken, pieces
from worker.queue.store import Store
from worker.queue.threads import start

T = TypeVar("T")

_EVERY_LETTER = DeadSelection()
_READ_AT_ONCE = 100


def open_queue_sync(url: str, *, timeout_seconds: float = 10.0) -> "SyncQueue":
    """Open the queue for code without asyncio; close it, or use it as a context manager.

    Args:
        url: as for `open_queue`.
        timeout_seconds: for every call to the store.

    Raises:
        QueueMisnamed: the URL is invalid, or can never name a queue.
        QueueUnusable: a person must fix it first: a password, a permission, a folder.
        QueueUnavailable: the store does not answer, or no further thread starts.
    """
    return SyncQueue(open_queue(url, timeout_seconds=timeout_seconds))


class SyncQueue:
    """A producer's queue whose calls block until they are done. Made by `open_queue_sync`.

    Any number of threads may share one object. Code inside an event loop may use it too, but blocks that loop
    meanwhile. A forked process must open its own.
    """

    def __init__(self, opening: AbstractAsyncContextManager[Store]) -> None:
        self._process = os.getpid()
        self._opening = opening
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="metasync queue", daemon=True)
        try:
            start(self._thread)
        except QueueUnavailable:
            self._loop.close()
            raise
        # An unclosed queue ends with the object or the process: acknowledged changes are in the store.
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
        """What the store's operator should know, one sentence each."""
        return self._store.warnings

    def put(self, changes: Given | Iterable[Given], *, batch: str | None = None, urgent: bool = False) -> Stored:
        """Store the changes; see `Queue.put`. The calling thread reads the iterable."""
        with Taken() as taken:
            for piece in pieces(changes):
                taken.add(self._run(self._store.put(piece, batch=batch, urgent=urgent)))
        return taken.stored

    def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        return self._run(self._store.batches(name))

    def pending_changes(self, selection: PendingSelection = EVERYTHING) -> Iterator[QueuedChange]:
        """Read pending changes in pieces; see `Store.pending_changes`."""
        return self._read(self._store.pending_changes(selection))

    def withdraw(self, selection: PendingSelection) -> Withdrawn:
        """Withdraw pending changes; see `Batches.withdraw`."""
        return self._run(self._store.withdraw(selection))

    def status(self) -> QueueStatus:
        """Return counts and ages."""
        return self._run(self._store.status())

    def dead_letters(self, selection: DeadSelection = _EVERY_LETTER) -> Iterator[DeadLetter]:
        """Read matching letters, oldest first, in pieces."""
        return self._read(self._store.dead_letters(selection))

    def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again; see `DeadLetters.retry_dead`."""
        return self._run(self._store.retry_dead(selection))

    def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; return how many there were."""
        return self._run(self._store.purge_dead(selection))

    def close(self) -> None:
        """Finish calls under way and close the store."""
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
        """Run the coroutine in the other thread, and wait for it."""
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
            future.cancel()  # after Ctrl-C, stop the work that has no caller any more
            raise


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped; then cancel the remaining tasks."""
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """Stop the loop and its thread; a forked process has none."""
    if os.getpid() != process:
        return
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:  # the garbage collector may run in that thread
        thread.join()
