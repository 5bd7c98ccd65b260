"""The queue in a SQLite file: the contract's calls, handed to the writer's thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import apsw

from worker.changes import MetadataChange
from worker.queue.base import Claim, DeadLetter, DeadSelection, Note, QueueStatus, Revived, Settlement, Stored
from worker.queue.history import HistoryMinute, Sample, checked
from worker.queue.permits import Grant
from worker.queue.sqlite import history, operations
from worker.queue.sqlite.file import QueueFile
from worker.queue.sqlite.operations import Bulk
from worker.queue.sqlite.writer import Writer

# Called with the connection, the number of the letter before, and that of the last.
BulkWork = Callable[[apsw.Connection, int, int], Bulk]


class SqliteQueue:
    """A queue in one file, for any number of processes of one machine. Made by `SqliteQueue.open`.

    Args:
        file: what the writer has open.
        clock: Unix time, seconds; called in the writer's thread.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self, file: QueueFile, writer: Writer, clock: Callable[[], float]) -> None:
        self._file = file
        self._writer = writer
        self._clock = clock
        self._work = asyncio.Event()

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0, clock: Callable[[], float] = time.time) -> Self:
        """Open the queue, making the file and its schema where they are missing.

        Args:
            url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; the directory must exist.
            timeout_seconds: of every call.
            clock: Unix time, seconds.

        Raises:
            QueueUnusable: the URL is not of this form, or what it names cannot serve as a queue.
            QueueUnavailable: other processes are in the way.
        """
        file = QueueFile(url)
        return cls(file, await Writer.open(file, timeout_seconds), clock)

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._file.path} [{'closed' if self._writer.closed else 'open'}]>"

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        """Store the changes; see `Queue.put`."""
        if not changes:
            return Stored(0, 0)
        stored = await self._writer.write(lambda connection: operations.put(connection, changes, now=self._clock()))
        self._work.set()
        return stored

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        """Lease due targets; see `Queue.claim`. What is claimed for a caller that has gone is given back."""
        if limit <= 0:
            return []
        return await self._writer.write(
            lambda connection: operations.claim(
                connection, limit, now=self._clock(), lease_seconds=lease_seconds, owner=owner
            ),
            undo=self._release,
        )

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run on; see `Queue.extend`."""
        if not claims:
            return []
        return await self._writer.write(
            lambda connection: operations.extend(connection, claims, visible_at=self._clock() + lease_seconds)
        )

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        if not settlements:
            return []
        stale = await self._writer.write(
            lambda connection: operations.settle(connection, settlements, now=self._clock())
        )
        self._work.set()
        return stale

    async def next_due_seconds(self) -> float | None:
        """Tell when there is work; see `Queue.next_due_seconds`."""
        visible_at = await self._writer.read(operations.next_due)
        return None if visible_at is None else visible_at - self._clock()

    async def wait_for_work(self, timeout_seconds: float) -> None:
        """Wait for this object's put, settle or retry_dead: what other processes do has to be polled for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        self._work.clear()

    async def status(self) -> QueueStatus:
        """Count what there is; see `Queue.status`."""
        return await self._writer.read(lambda connection: operations.status(connection, now=self._clock()))

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Read the letters that match, oldest first, in pages."""
        after: int | None = 0
        while after is not None:
            page, after = await self._dead_page(selection, after)
            for letter in page:
                yield letter

    async def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again; see `Queue.retry_dead`. A large number takes several transactions."""
        revived = Revived(0, 0)
        async for bulk in self._in_bulk(
            lambda connection, after, until: operations.retry_dead(
                connection, selection, after=after, until=until, now=self._clock()
            )
        ):
            revived = Revived(revived.retried + bulk.done, revived.kept + bulk.kept)
            self._work.set()
        return revived

    async def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; see `Queue.purge_dead`. A large number takes several transactions."""
        purged = 0
        async for bulk in self._in_bulk(
            lambda connection, after, until: operations.purge_dead(connection, selection, after=after, until=until)
        ):
            purged += bulk.done
        return purged

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits of the shared rate; see `Queue.take_permits`."""
        return await self._writer.write(
            lambda connection: operations.take_permits(
                connection, count, now=self._clock(), per_minute=per_minute, ahead_seconds=ahead_seconds
            )
        )

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep or remove a note; see `Queue.write_note`."""
        await self._writer.write(lambda connection: operations.write_note(connection, name, text, now=self._clock()))

    async def read_notes(self) -> dict[str, Note]:
        """Give all notes; see `Queue.read_notes`."""
        return await self._writer.read(lambda connection: operations.read_notes(connection, now=self._clock()))

    async def record_sample(self, sample: Sample) -> None:
        """Keep a sample; see `Queue.record_sample`."""
        await self._writer.write(lambda connection: history.record(connection, sample, now=self._clock()))

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Give the last minutes; see `Queue.history`."""
        checked(minutes)
        return await self._writer.read(lambda connection: history.read(connection, minutes, now=self._clock()))

    async def dead_reasons(self) -> dict[str, int]:
        """Count the letters; see `Queue.dead_reasons`."""
        return await self._writer.read(history.dead_reasons)

    async def close(self) -> None:
        """Finish what is under way and let go of the file."""
        await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _release(self, claims: Sequence[Claim], connection: apsw.Connection) -> None:
        if claims:
            operations.release(connection, claims, now=self._clock())

    async def _dead_page(self, selection: DeadSelection, after: int) -> tuple[list[DeadLetter], int | None]:
        return await self._writer.read(lambda connection: operations.dead_letters(connection, selection, after=after))

    async def _in_bulk(self, work: BulkWork) -> AsyncIterator[Bulk]:
        """Go through the letters that there are now, one transaction after another.

        Each is short, so that workers get their turn and no call takes too long; and letters that come back
        meanwhile, because what was retried died again, are not met a second time.
        """
        until = await self._writer.read(operations.newest_dead_letter)
        after: int | None = 0
        while after is not None:
            bulk = await self._bulk(work, after, until)
            yield bulk
            after = bulk.last

    async def _bulk(self, work: BulkWork, after: int, until: int) -> Bulk:
        return await self._writer.write(lambda connection: work(connection, after, until))
