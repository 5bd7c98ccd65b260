"""The writer: a thread that owns the connection, runs transactions, and commits waiting calls together."""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, ParamSpec, Self, TypeVar

import apsw
import msgspec

from worker.queue.errors import QueueUnavailable
from worker.queue.home import Home
from worker.queue.sqlite.file import QueueFile
from worker.queue.threads import start

T = TypeVar("T")
P = ParamSpec("P")

# Waiting for other processes ends before the caller's time-out, so that the caller gets the true reason.
_BUSY_SHARE = 0.9
_BUSY_POLL_SECONDS = 0.005
# Checkpoint after so many pages of 4 KiB in the log: fewer cost throughput, more make a checkpoint take seconds on a
# slow disk.
_CHECKPOINT_PAGES = 4_000
_TRUNCATE_BUSY_MS = 500  # how long calls may wait while the log is emptied
_TRUNCATE_AGAIN_SECONDS = 1.0  # after a failed attempt, with the next commit


def _nothing(_: apsw.Connection) -> None:
    pass


class Writer:
    """Runs functions of the connection in a thread, for callers in an event loop.

    All calls that wait during a commit go into the next transaction: under load, one disk wait serves many. A function
    may run again after a rollback, so it must have no effect outside the database.

    Args:
        file: the file to open.
        timeout_seconds: for every call, waiting included.
        on_connect: called in the thread with each new connection, which may be to another file at the path.
    """

    def __init__(
        self, file: QueueFile, timeout_seconds: float, on_connect: Callable[[apsw.Connection], None] = _nothing
    ) -> None:
        self._file = file
        self._on_connect = on_connect
        self._timeout_seconds = timeout_seconds
        self._home = Home()
        self._loop = asyncio.get_running_loop()
        self._busy_seconds = timeout_seconds * _BUSY_SHARE
        self._inbox: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._put_off: list[_Call[Any] | None] = []  # write calls that arrived while the thread waited for the lock
        self._reads: list[_Call[Any]] = []
        self._ended = asyncio.Event()
        # A daemon thread, so that an unclosed queue does not keep the process alive: acknowledged writes are on disk.
        self._thread = threading.Thread(target=self._run, name=f"metasync {file.path.name}", daemon=True)
        self._truncate_at = math.inf  # when to try again to empty the log; by the monotonic clock
        self.closed = False
        self.commits = 0
        self._checkpoint_at = _CHECKPOINT_PAGES
        self._connection: apsw.Connection | None = None

    @classmethod
    async def open(
        cls, file: QueueFile, timeout_seconds: float, on_connect: Callable[[apsw.Connection], None] = _nothing
    ) -> Self:
        """Start the thread and wait until it has opened the file.

        Raises:
            QueueUnusable, QueueUnavailable: as by `QueueFile.connect`, and by `start`.
        """
        writer = cls(file, timeout_seconds, on_connect)
        start(writer._thread)
        try:
            await writer.read(_nothing)
        except BaseException:
            await writer.close()
            raise
        return writer

    async def write(
        self,
        work: Callable[[apsw.Connection], T],
        *,
        undo: Callable[[T, apsw.Connection], None] | None = None,
        committed: Callable[[], None] | None = None,
    ) -> T:
        """Run the function in a write transaction; when this returns, its effect is durable.

        Args:
            work: called with the connection, in the thread.
            undo: reverts a result that was committed after the caller had gone.
            committed: called in the thread after the commit, even if the caller has gone.

        Raises:
            QueueUnavailable: nothing was changed; or it took too long, and may have been changed.
            QueueUnusable: the file is damaged or missing; it may be put back.
        """
        call = _Call(work, self._loop.create_future(), writes=True, undo=undo, committed=committed)
        return await self._answer(call)

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run the function outside of a transaction, without waiting for other processes.

        It runs after the waiting writes, but overtakes a write that waits for another process.

        Raises:
            QueueUnavailable, QueueUnusable: as for `write`.
        """
        return await self._answer(_Call(work, self._loop.create_future(), writes=False))

    async def truncate_log(self) -> None:
        """Move the whole log into the file and empty it; if other processes prevent it, after a later commit.

        Raises:
            QueueUnavailable, QueueUnusable: as for `write`.
        """
        await self.read(self._truncate)

    async def close(self) -> None:
        """Finish waiting calls, close the file and end the thread; waits at most as long as two calls."""
        self._home.check()
        if self.closed:
            return
        try:
            # All writes are answered before this one; calls without a caller are in the inbox by then.
            with suppress(Exception):
                await self._answer(_Call(_nothing, self._loop.create_future(), writes=False, overtakes=False))
        finally:
            self.closed = True
            self._inbox.put(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await self._ended.wait()
            self._thread.join()  # the thread only has to return

    async def _answer(self, call: "_Call[T]") -> T:
        self._home.check()
        if self.closed:
            raise RuntimeError("the queue is closed")
        self._inbox.put(call)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await call.answer
        except TimeoutError:
            if call.has_succeeded:
                return call.answer.result()
            raise QueueUnavailable(
                f"the queue {self._file.path} did not answer within {self._timeout_seconds:g} seconds"
            ) from None
        except asyncio.CancelledError:
            if call.has_succeeded:
                self._take_back(call)
            raise

    def _deliver(self, calls: "Sequence[_Call[Any]]", error: Exception | None) -> None:
        """Answer the callers; runs in the event loop."""
        for call in calls:
            if not call.is_abandoned:
                if error is None:
                    call.answer.set_result(call.result)
                else:
                    call.answer.set_exception(error)
            elif error is None:
                self._take_back(call)

    def _take_back(self, call: "_Call[Any]") -> None:
        if call.undo is not None:
            self._inbox.put(_Call(partial(call.undo, call.result), self._loop.create_future(), writes=True))

    # The methods below run in the thread. No exception of a call ends it.

    def _run(self) -> None:
        try:
            self._connection = self._connect()
        except Exception as error:  # noqa: BLE001 -- the caller gets any exception
            while call := self._inbox.get():
                self._tell([call], error)
        else:
            self._serve()
            # No PRAGMA optimize: the statements need no statistics, and those of an empty queue would mislead the
            # planner.
            with suppress(apsw.Error):
                if self._connection is not None:
                    self._connection.close()
        with suppress(RuntimeError):  # the loop may be closed
            self._loop.call_soon_threadsafe(self._ended.set)

    def _serve(self) -> None:
        """Work until the inbox returns None, which comes last."""
        is_last = False
        while not is_last:
            waiting, self._put_off = self._put_off or [self._inbox.get()], []
            with suppress(queue.Empty):
                while True:
                    waiting.append(self._inbox.get_nowait())
            is_last = waiting[-1] is None
            calls = [call for call in waiting if call is not None]
            if error := self._attempt(self._follow):
                self._tell([call for call in calls if not call.is_abandoned], error)
            elif self._connection is not None:
                self._reads = [call for call in calls if not call.writes]
                self._write(self._connection, [call for call in calls if call.writes])
                self._read(self._connection, lambda _: True)
            del waiting, calls  # else what they carry, which may be megabytes, would stay until the next call

    def _follow(self) -> None:
        """Reopen the path if another file is there now."""
        if self._connection is not None:
            if self._file.is_in_place():
                return
            self._file.abandon(self._connection)
            self._connection = None
        self._connection = self._connect()
        self._checkpoint_at = _CHECKPOINT_PAGES

    def _connect(self) -> apsw.Connection:
        connection = self._file.connect(self._busy_seconds)
        try:
            with self._file.explained():
                self._on_connect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, connection: apsw.Connection, may: "Callable[[_Call[Any]], bool]") -> None:
        """Run the waiting reads that `may` allows."""
        calls = [call for call in self._reads if may(call)]
        self._reads = [call for call in self._reads if not may(call)]
        for call in calls:
            if not call.is_abandoned:
                self._tell([call], self._attempt(call.perform, connection))

    def _write(self, connection: apsw.Connection, calls: "Sequence[_Call[Any]]") -> None:
        """Commit the calls together; if that fails, commit each alone, so that none affects another."""
        calls = [call for call in calls if not call.is_abandoned]
        if not calls:
            return
        if error := self._attempt(self._begin, connection):
            self._tell(calls, error)
        elif error := self._attempt(self._commit, connection, calls):
            if connection.in_transaction:  # some failures roll back by themselves
                self._attempt(connection.execute, "ROLLBACK")
            if len(calls) == 1:
                self._tell(calls, error)
            else:
                for call in calls:
                    self._write(connection, [call])
        else:
            self.commits += 1
            for call in calls:
                if call.committed is not None:
                    call.committed()
            self._tell(calls, None)
            self._checkpoint(connection)

    def _begin(self, connection: apsw.Connection) -> None:
        deadline = time.monotonic() + self._busy_seconds
        connection.set_busy_timeout(0)
        try:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except apsw.BusyError:
                    if time.monotonic() >= deadline:
                        raise
                    self._read(connection, lambda call: call.overtakes)
                    self._await_others(_BUSY_POLL_SECONDS)
                else:
                    return
        finally:
            connection.set_busy_timeout(int(self._busy_seconds * 1_000))

    def _await_others(self, seconds: float) -> None:
        """Wait so long, unless a call arrives."""
        with suppress(queue.Empty):
            call = self._inbox.get(timeout=seconds)
            if call is None or call.writes:
                self._put_off.append(call)
            else:
                self._reads.append(call)

    def _commit(self, connection: apsw.Connection, calls: "Sequence[_Call[Any]]") -> None:
        for call in calls:
            call.perform(connection)
        if any(call.is_abandoned for call in calls):
            raise QueueUnavailable("a caller has gone: what it wanted done is undone")
        connection.execute("COMMIT")

    def _checkpoint(self, connection: apsw.Connection) -> None:
        """Checkpoint when the log has grown enough since the last time.

        SQLite itself would try after every commit; and while another process reads, it would sort the whole log each
        time before it finds that it must wait.
        """
        with suppress(apsw.Error):  # another process does it, or the disk is full: commits are safe in the log
            pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            is_due = pages >= self._checkpoint_at
            if is_due or pages + _CHECKPOINT_PAGES < self._checkpoint_at:  # the second: the log was reset
                self._checkpoint_at = pages + _CHECKPOINT_PAGES
            if is_due:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if time.monotonic() >= self._truncate_at:
                self._truncate(connection, busy_ms=0)

    def _truncate(self, connection: apsw.Connection, *, busy_ms: int = _TRUNCATE_BUSY_MS) -> None:
        """Empty the log now, or later if a process reads it: no other checkpoint overwrites all of it."""
        self._truncate_at = time.monotonic() + _TRUNCATE_AGAIN_SECONDS
        connection.set_busy_timeout(busy_ms)
        try:
            with suppress(apsw.BusyError, apsw.LockedError):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._truncate_at = math.inf
        finally:
            connection.set_busy_timeout(int(self._busy_seconds * 1_000))

    def _attempt(self, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Exception | None:
        try:
            with self._file.explained():
                step(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- the callers get any exception
            return error
        return None

    def _tell(self, calls: "Sequence[_Call[Any]]", error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop may be closed, without callers
            self._loop.call_soon_threadsafe(self._deliver, calls, error)


class _Call(msgspec.Struct, Generic[T], eq=False):
    """A function to run in the thread, and the future for its answer."""

    work: Callable[[apsw.Connection], T]
    answer: asyncio.Future[T]
    writes: bool
    overtakes: bool = True  # whether it may run before writes that wait for another process
    undo: Callable[[T, apsw.Connection], None] | None = None
    committed: Callable[[], None] | None = None
    result: T | None = None

    def __post_init__(self) -> None:
        # Mark a failure as retrieved: the caller may have gone.
        self.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    @property
    def is_abandoned(self) -> bool:
        """Whether the caller has gone."""
        return self.answer.cancelled()

    @property
    def has_succeeded(self) -> bool:
        """Whether it was answered without a failure."""
        return self.answer.done() and not self.answer.cancelled() and self.answer.exception() is None

    def perform(self, connection: apsw.Connection) -> None:
        self.result = self.work(connection)
