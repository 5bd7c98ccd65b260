"""The queue in a SQLite file: passes the contract's calls to the writer's thread."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Concatenate, ParamSpec, Self, TypeVar

import apsw
import msgspec

from worker.changes import MetadataChange
from worker.queue.base import Part, StoreBase, Stretch, last_number
from worker.queue.batch import Batch, PendingSelection, Terms, Withdrawn
from worker.queue.confirmed import LogIndex, LogRow
from worker.queue.coordination import Note
from worker.queue.history import HistoryMinute, Sample, checked
from worker.queue.letters import DeadLetter, DeadSelection, LetterCount, Revived
from worker.queue.pending import Claim, LeaseHolder, Place, QueuedChange, QueueStatus, Settlement, Stored, check_lease
from worker.queue.quota import Grant
from worker.queue.sqlite import batches, confirmed, history, letters, operations, pending, remembered
from worker.queue.sqlite.clock import Clocks, Moment, QueueClock
from worker.queue.sqlite.file import QueueFile
from worker.queue.sqlite.watching import told_of_writes
from worker.queue.sqlite.writer import Writer
from worker.queue.statements import read_migrations
from worker.queue.unanswered import UnansweredSettlements

T = TypeVar("T")
P = ParamSpec("P")

# Pause between two pieces of a withdrawal, so that other processes get the write lock.
_TURN_SECONDS = 0.01


class _SettleCall(msgspec.Struct, eq=False):
    """The result of a call whose caller stopped waiting.

    Args:
        stale: the settlements that changed nothing, if the call was carried out.
    """

    settlements: Sequence[Settlement]
    stale: Sequence[Settlement] = ()
    is_committed: threading.Event = msgspec.field(default_factory=threading.Event)
    _valid: Collection[tuple[str, int]] | None = None

    def stored(self, settlement: Settlement) -> bool:
        """Whether the call was carried out and settled the claim."""
        if not self.is_committed.is_set():
            return False
        if self._valid is None:  # hardly any call is ever asked
            stale = Counter(each.claim.key for each in self.stale)
            self._valid = Counter(each.claim.key for each in self.settlements) - stale
        return settlement.claim.key in self._valid


class SqliteQueue(StoreBase):
    """A queue in one file, for any number of processes on one machine. Use `SqliteQueue.open`.

    Args:
        file: the writer's file.
        clock: called in the writer's thread.
    """

    def __init__(self, file: QueueFile, writer: Writer, clock: QueueClock) -> None:
        super().__init__()
        self._file = file
        self._writer = writer
        self._clock = clock
        self._log = LogIndex()
        self._log_from: apsw.Connection | None = None  # the connection that the log index was read from
        self._unanswered = UnansweredSettlements[_SettleCall]()

    @classmethod
    async def open(
        cls, url: str, *, timeout_seconds: float = 10.0, create: bool = True, clocks: Clocks | None = None
    ) -> Self:
        """Open the queue; create the file and its schema if missing.

        Args:
            url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; the directory must exist.
            timeout_seconds: for every call.
            create: create a missing file.
            clocks: the clocks, if not the machine's.

        Raises:
            QueueMisnamed: the URL has another form, or can never name a queue.
            QueueUnusable: the file cannot be used now.
            QueueUnavailable: other processes hold it.
        """
        file, clock = QueueFile(url, create=create), QueueClock(clocks or Clocks.of_this_machine())
        writer = await Writer.open(file, timeout_seconds, clock.set_by)
        queue = cls(file, writer, clock)
        queue.warnings = file.warnings()
        return queue

    @staticmethod
    def migration_sql() -> str:
        """Return the statements that turn an empty file into a queue, as one transaction."""
        return "\n".join(["BEGIN IMMEDIATE;\n", *(sql for _, sql in read_migrations(__package__)), "COMMIT;\n"])

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._file.path} [{'closed' if self._writer.closed else 'open'}]>"

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        stored = await self._write(operations.put, changes, terms)
        self._work.set()
        return stored

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Look for conflicts; see `Queue.conflicts`."""
        return await self._read(operations.conflicts, changes)

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        """Lease due targets; see `Queue.claim`. If the caller has gone, the claims are released."""
        if limit <= 0:
            return []
        check_lease(lease_seconds)

        def claim(connection: apsw.Connection) -> tuple[list[Claim], list[LogRow], LogIndex]:
            if connection is not self._log_from:  # a new file has another log
                self._log, self._log_from = LogIndex(), connection
            log = self._log = self._log.covering(confirmed_seconds)
            now = self._clock()
            claims = operations.claim(connection, now, limit, lease_seconds=lease_seconds, owner=owner, place=place)
            if confirmed_seconds <= 0:
                return claims, [], log
            return *confirmed.attach(connection, claims, log, now=now.queue, seconds=confirmed_seconds), log

        claims, news, log = await self._writer.write(
            claim, undo=lambda claimed, connection: operations.release(connection, self._clock(), claimed[0])
        )
        log.learn(news, now=self._clock().queue)
        return claims

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Extend the leases; see `Queue.extend`."""
        if not claims:
            return []
        check_lease(lease_seconds)
        return await self._write(operations.extend, claims, lease_seconds=lease_seconds)

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        if not settlements:
            return []
        call = _SettleCall(settlements)

        def settle(connection: apsw.Connection) -> tuple[list[Settlement], bool]:
            stale, is_cut_short = operations.settle(
                connection, self._clock(), settlements, keep_seconds=keep_seconds, remember=remember
            )
            call.stale = stale
            return stale, is_cut_short

        try:
            stale, is_cut_short = await self._writer.write(settle, committed=call.is_committed.set)
        except BaseException:
            for settlement in settlements:
                self._unanswered.add(settlement, call)
            raise
        stale = self._unanswered.not_stored(stale, lambda settlement, earlier: earlier.stored(settlement))
        self._unanswered.forget(settlements)
        if is_cut_short:
            self._warn_of_a_short_log()
        self._work.set()
        return stale

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Wait for writes by any process."""
        with told_of_writes(self._file.log, self._work.set):
            return await super().wait_for_work(timeout_seconds)

    async def next_due_seconds(self) -> float | None:
        """Return when work is due; see `Queue.next_due_seconds`."""
        return await self._read(operations.next_due_seconds)

    async def status(self) -> QueueStatus:
        """Count the changes; see `Queue.status`."""
        return await self._read(operations.status)

    async def leases(self) -> list[LeaseHolder]:
        """Return the leases by worker; see `Queue.leases`."""
        return await self._read(operations.leases)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Count the letters; see `DeadLetters.dead_reasons`."""
        return await self._writer.read(lambda connection: letters.reasons(connection, last_number(until)))

    async def withdraw(
        self, selection: PendingSelection, *, go_on: Callable[[Withdrawn], bool] | None = None
    ) -> Withdrawn:
        """Withdraw pending changes; see `Batches.withdraw`. Their values are erased from the file and its log."""
        withdrawn = await super().withdraw(selection, go_on=go_on)
        if withdrawn.withdrawn:
            await self._writer.truncate_log()
        return withdrawn

    async def purge_dead(self, selection: DeadSelection, *, go_on: Callable[[int], bool] | None = None) -> int:
        """Delete the letters; see `DeadLetters.purge_dead`. Their values are erased from the file and its log."""
        purged = await super().purge_dead(selection, go_on=go_on)
        await self._writer.truncate_log()
        return purged

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        """Delete the oldest letters; see `DeadLetters.expire_dead`. Their values are erased as by `purge_dead`."""
        purged = await super().expire_dead(older_than_seconds, most=most)
        if purged:
            await self._writer.truncate_log()
        return purged

    async def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        return await self._read(batches.read, name)

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete expired data; see `Batches.forget`. It may take many short transactions."""
        forgotten = await self._write(batches.forget, older_than_seconds, most)
        for kind in remembered.KINDS:
            gone, is_all = 0, False
            while gone < most and not is_all:
                part, is_all = await self._write(remembered.forget, kind, older_than_seconds, most - gone)
                gone += part
            forgotten += gone
        return forgotten

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`. Once the queue rests, all deleted values are erased."""
        if await self._write(confirmed.forget, older_than_seconds, most):
            await self._writer.truncate_log()

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take of the shared quota; see `Coordination.take_quota`."""
        return await self._write(operations.take_quota, requests, per_minute=per_minute, ahead_seconds=ahead_seconds)

    async def write_note(self, name: str, text: str | None) -> None:
        """Write or remove a note; see `Coordination.write_note`."""
        await self._write(operations.write_note, name, text)

    async def read_note(self, name: str) -> Note | None:
        """Read one note; see `Coordination.read_note`."""
        return await self._read(operations.read_note, name)

    async def read_notes(self) -> dict[str, Note]:
        """Read all notes; see `Coordination.read_notes`."""
        return await self._read(operations.read_notes)

    async def unix_time(self) -> float:
        """Return the queue's time; see `Coordination.unix_time`."""
        return self._clock().queue

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample; see `History.record_sample`."""
        await self._write(history.record, sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes; see `History.history`."""
        return await self._read(history.read, checked(minutes))

    async def close(self) -> None:
        """Finish calls under way and close the file."""
        await self._writer.close()

    async def _read_pending(
        self, selection: PendingSelection, place: pending.Place | None
    ) -> tuple[list[QueuedChange], pending.Place | None]:
        return await self._read(pending.read, selection, place)

    async def _withdraw(
        self, selection: PendingSelection, place: pending.Place | None
    ) -> tuple[Withdrawn, pending.Place | None]:
        if place is not None:
            await asyncio.sleep(_TURN_SECONDS)
        return await self._write(pending.withdraw, selection, place)

    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        return await self._read(letters.read, stretch)

    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        return await self._write(letters.retry, stretch)

    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        return await self._write(letters.purge, stretch)

    async def _write(
        self, operation: Callable[Concatenate[apsw.Connection, Moment, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run an operation in a transaction, with the time at that moment."""
        return await self._writer.write(lambda connection: operation(connection, self._clock(), *args, **kwargs))

    async def _read(
        self, operation: Callable[Concatenate[apsw.Connection, Moment, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._writer.read(lambda connection: operation(connection, self._clock(), *args, **kwargs))
