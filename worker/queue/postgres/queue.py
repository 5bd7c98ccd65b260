"""The queue in a PostgreSQL database: the contract's calls, each a transaction on one of a few connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from worker.changes import MetadataChange
from worker.queue.base import (
    Claim,
    DeadLetter,
    DeadSelection,
    Note,
    QueueError,
    QueueStatus,
    Revived,
    Settlement,
    Stored,
)
from worker.queue.history import HistoryMinute, Sample, checked
from worker.queue.permits import Grant
from worker.queue.postgres import history, letters, operations
from worker.queue.postgres.address import Address
from worker.queue.postgres.connections import Connection, Connections
from worker.queue.postgres.floor import Floor
from worker.queue.postgres.letters import Bulk
from worker.queue.postgres.listener import Listener
from worker.queue.postgres.migrate import migrate


class PostgresQueue:
    """A queue in one database, for any number of machines. Made by `PostgresQueue.open`.

    Args:
        connections: to the database, which has the schema.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._work = asyncio.Event()
        self._listener = Listener(connections, self._work)
        self._floor = Floor(time.monotonic)
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0) -> Self:
        """Open the queue, making its schema in the database where it is missing.

        Args:
            url: ``postgresql://user:password@host:5432/database``; with ``?listen=off`` behind a proxy that pools
                transactions.
            timeout_seconds: of every call.

        Raises:
            QueueUnusable: the URL is not of this form, or what it names cannot serve as a queue.
            QueueUnavailable: the server does not answer.
        """
        connections = Connections(Address.parse(url), timeout_seconds)
        try:
            await migrate(connections)
        except BaseException:
            await connections.close()
            raise
        return cls(connections)

    def __repr__(self) -> str:
        connections = self._connections
        return f"<PostgresQueue {connections.address.shown} [{'closed' if connections.closed else 'open'}]>"

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        """Store the changes; see `Queue.put`."""
        if not changes:
            return Stored(0, 0)
        stored = await self._connections.transact(lambda connection: operations.put(connection, changes))
        self._work.set()
        return stored

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        """Lease due targets; see `Queue.claim`. What is claimed for a caller that has gone is given back."""
        if limit <= 0:
            return []
        claiming = asyncio.create_task(self._claim(limit, lease_seconds, owner))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._in_background(self._take_back(claiming))
            raise

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run on; see `Queue.extend`."""
        if not claims:
            return []
        return await self._connections.transact(
            lambda connection: operations.extend(connection, claims, lease_seconds=lease_seconds)
        )

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        if not settlements:
            return []
        stale = await self._connections.transact(lambda connection: operations.settle(connection, settlements))
        self._work.set()
        return stale

    async def next_due_seconds(self) -> float | None:
        """Tell when there is work; see `Queue.next_due_seconds`."""
        return await self._connections.transact(operations.next_due_seconds)

    async def wait_for_work(self, timeout_seconds: float) -> None:
        """Wait for this object's put, settle or retry_dead, or for what the server says that others have put."""
        self._listener.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        self._work.clear()

    async def status(self) -> QueueStatus:
        """Count what there is; see `Queue.status`."""
        return await self._connections.transact(operations.status)

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
            lambda connection, after, until: letters.retry(connection, selection, after=after, until=until)
        ):
            revived = Revived(revived.retried + bulk.done, revived.kept + bulk.kept)
            self._work.set()
        return revived

    async def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; see `Queue.purge_dead`. A large number takes several transactions."""
        purged = 0
        async for bulk in self._in_bulk(
            lambda connection, after, until: letters.purge(connection, selection, after=after, until=until)
        ):
            purged += bulk.done
        return purged

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits of the shared rate; see `Queue.take_permits`."""
        return await self._connections.transact(
            lambda connection: operations.take_permits(
                connection, count, per_minute=per_minute, ahead_seconds=ahead_seconds
            )
        )

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep or remove a note; see `Queue.write_note`."""
        await self._connections.transact(lambda connection: operations.write_note(connection, name, text))

    async def read_notes(self) -> dict[str, Note]:
        """Give all notes; see `Queue.read_notes`."""
        return await self._connections.transact(operations.read_notes)

    async def record_sample(self, sample: Sample) -> None:
        """Keep a sample; see `Queue.record_sample`."""
        await self._connections.transact(lambda connection: history.record(connection, sample))

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Give the last minutes; see `Queue.history`."""
        checked(minutes)
        return await self._connections.transact(lambda connection: history.read(connection, minutes))

    async def dead_reasons(self) -> dict[str, int]:
        """Count the letters; see `Queue.dead_reasons`."""
        return await self._connections.transact(history.dead_reasons)

    async def close(self) -> None:
        """Finish what is under way and let go of the server."""
        await self._listener.close()
        while self._background:
            await asyncio.wait(self._background)
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _claim(self, limit: int, lease_seconds: float, owner: str) -> list[Claim]:
        floor = self._floor.visible_at
        try:
            claimed = await self._connections.transact(
                lambda connection: operations.claim(
                    connection, limit, floor=floor, lease_seconds=lease_seconds, owner=owner
                )
            )
        except BaseException:
            self._floor.reset()  # others have passed over what this held for a moment
            raise
        self._floor.claimed(claimed.oldest, is_full=claimed.is_full)
        return claimed.claims

    async def _take_back(self, claiming: asyncio.Task[list[Claim]]) -> None:
        with suppress(QueueError):  # then the leases run out by themselves
            if claims := await claiming:
                await self._connections.transact(lambda connection: operations.release(connection, claims))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what no caller waits for any longer; closing waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _dead_page(self, selection: DeadSelection, after: int) -> tuple[list[DeadLetter], int | None]:
        return await self._connections.transact(
            lambda connection: letters.read_page(connection, selection, after=after)
        )

    async def _in_bulk(self, work: Callable[[Connection, int, int], Awaitable[Bulk]]) -> AsyncIterator[Bulk]:
        """Go through the letters that there are now, one transaction after another.

        Each is short, so that workers get their turn and no call takes too long; and letters that come back
        meanwhile, because what was retried died again, are not met a second time.
        """
        until = await self._connections.transact(letters.newest)
        after: int | None = 0
        while after is not None:
            bulk = await self._bulk(work, after, until)
            yield bulk
            after = bulk.last

    async def _bulk(self, work: Callable[[Connection, int, int], Awaitable[Bulk]], after: int, until: int) -> Bulk:
        return await self._connections.transact(lambda connection: work(connection, after, until))
