"""The queue in a PostgreSQL database. Each call is a transaction on a connection of the pool."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Self

from worker.changes import MetadataChange
from worker.queue.base import Part, StoreBase, Stretch, last_number
from worker.queue.batch import Batch, PendingSelection, Terms, Withdrawn
from worker.queue.coordination import Note
from worker.queue.errors import QueueError
from worker.queue.history import HistoryMinute, Sample, checked
from worker.queue.letters import LONGEST_AGO_SECONDS, DeadLetter, LetterCount, Revived
from worker.queue.pending import Claim, LeaseHolder, Place, QueuedChange, QueueStatus, Settlement, Stored, check_lease
from worker.queue.postgres import (
    batches,
    confirmed,
    history,
    letters,
    notes,
    operations,
    pending,
    putting,
    remembered,
    status,
)
from worker.queue.postgres.address import Address
from worker.queue.postgres.confirmed import LogIndexWithGaps
from worker.queue.postgres.connections import Connection, Connections
from worker.queue.postgres.floor import Effort, Floor
from worker.queue.postgres.listener import Listener
from worker.queue.postgres.migrate import migrate, migration_sql
from worker.queue.postgres.operations import Claimed, Settled
from worker.queue.postgres.unanswered import UnansweredClaims
from worker.queue.quota import Grant
from worker.queue.text import storable
from worker.queue.unanswered import UnansweredSettlements

# When to ask again whether anything is left, if a sure answer would take too long now.
_UNSURE_SECONDS = 1.0
# Producers are asked to notify only if that may save a wait of this length. Under load it costs more, since commits
# that notify queue up.
_LONG_WAIT_SECONDS = 0.1
# So an idle worker makes less than one transaction a second in all.
_POLL_SECONDS, _DEAF_POLL_SECONDS = 2.0, 1.5


class PostgresQueue(StoreBase):
    """A queue in one database, for any number of machines. Use `PostgresQueue.open`.

    Args:
        connections: to the database, which has the schema.
        warnings: for the user, a sentence each.
    """

    def __init__(self, connections: Connections, warnings: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.warnings = (*connections.address.warnings, *warnings)
        self._connections = connections
        self._transact = connections.transact
        self._listener = Listener(connections, self._work)
        self._floor, self._urgent_floor = Floor(time.monotonic), Floor(time.monotonic)
        self._being_sure = Effort(time.monotonic)  # that nothing is left
        self._unanswered_claims = UnansweredClaims()
        self._unanswered_settlements = UnansweredSettlements[str]()  # by number of the transaction
        self._log = LogIndexWithGaps()
        self._log_from = 0  # below this number, the log's rows are deleted
        self._opened = 0  # connections before the last claim: a new one may lead to a new server
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float = 10.0, create: bool = True) -> Self:
        """Open the queue; make its schema in the database if it is missing.

        Args:
            url: ``postgresql://user:password@host:5432/database``, with ``?listen=off`` behind a proxy that pools
                transactions.
            timeout_seconds: of every call.
            create: whether to make a missing schema.

        Raises:
            QueueMisnamed: the URL has another form, or its database can never be a queue.
            QueueUnusable: its database cannot be a queue now.
            QueueUnavailable: the server does not answer.
        """
        connections = Connections(Address.parse(url), timeout_seconds)
        try:
            await connections.notice_pooling()
            warnings = await migrate(connections, create=create)
        except BaseException:
            await connections.close()
            raise
        return cls(connections, warnings)

    @staticmethod
    def migration_sql() -> str:
        """Return the statements that make a queue in an empty database, as one transaction."""
        return migration_sql()

    def __repr__(self) -> str:
        connections = self._connections
        return f"<PostgresQueue {connections.address.shown} [{'closed' if connections.closed else 'open'}]>"

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        stored = await self._transact(putting.put, changes, terms)
        self._work.set()
        return stored

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Look for conflicts; see `Queue.conflicts`."""
        return await self._transact(putting.conflicts, changes)

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        """Lease due targets; see `Queue.claim`. The claims of a cancelled caller are given back."""
        if limit <= 0:
            return []
        check_lease(lease_seconds)
        claiming = asyncio.create_task(self._claim(limit, lease_seconds, owner, place, confirmed_seconds))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._in_background(self._take_back(claiming))
            raise

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run on; see `Queue.extend`."""
        if not claims:
            return []
        check_lease(lease_seconds)
        return await self._transact(operations.extend, claims, lease_seconds=lease_seconds)

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        if not settlements:
            return []
        under_way: list[Settled] = []
        unanswered = self._unanswered_settlements

        async def settle(connection: Connection) -> list[Settlement]:
            log_from = self._log_from
            settled = await operations.settle(
                connection, settlements, keep_seconds=keep_seconds, look_from=log_from, remember=remember
            )
            under_way[:] = [settled]
            transactions = set(unanswered.calls(settled.stale))
            committed = {each for each in transactions if await operations.was_committed(connection, each)}
            return unanswered.not_stored(settled.stale, lambda _, transaction: transaction in committed)

        try:
            stale = await self._transact(settle)
        except BaseException:
            for settled in under_way:
                if settled.transaction is not None:
                    for settlement in settled.valid:
                        unanswered.add(settlement, settled.transaction)
            raise
        unanswered.forget(settlements)
        [settled] = under_way
        self._log_from = settled.appended.look_from
        if settled.appended.is_cut_short:
            self._warn_of_a_short_log()
        self._work.set()
        return stale

    async def next_due_seconds(self) -> float | None:
        """Return when there is work; see `Queue.next_due_seconds`.

        Only a look everywhere shows that the queue is empty. If that is slow, it is not done at every call; in between,
        the answer is a short wait.
        """
        kinds = self._floor, self._urgent_floor
        usual, urgent = floors = [each.visible_at for each in kinds]

        async def ask(connection: Connection) -> float | None:
            due_seconds, at = await operations.next_due_seconds(connection, usual, urgent)
            for each in kinds:
                each.met(at)
            if not any(each.is_below(floor) for each, floor in zip(kinds, floors, strict=True)):
                if due_seconds is not None or floors == [None, None]:
                    return due_seconds
                if not self._being_sure.is_affordable:
                    return _UNSURE_SECONDS
            with self._being_sure.made():
                due_seconds, _ = await operations.next_due_seconds(connection, None, None)
            return due_seconds

        return await self._transact(ask)

    @property
    def poll_seconds(self) -> float:
        """How often to ask for due work: less often if notifications arrive."""
        return _POLL_SECONDS if self._connections.address.listens else _DEAF_POLL_SECONDS

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Wait for a put, settle or retry_dead of this object, or for a notification of another producer."""
        self._listener.start()
        if timeout_seconds >= _LONG_WAIT_SECONDS:
            self._listener.ask()
        return await super().wait_for_work(timeout_seconds)

    async def status(self) -> QueueStatus:
        """Count the queue; see `Queue.status`."""
        return await self._transact(status.read)

    async def leases(self) -> list[LeaseHolder]:
        """Return which worker holds how many leases; see `Queue.leases`."""
        return await self._transact(status.leases)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Count the letters; see `DeadLetters.dead_reasons`."""
        return await self._transact(letters.reasons, last_number(until))

    async def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        return await self._transact(batches.read, storable(name))

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete what is remembered for too long; see `Batches.forget`."""
        age_seconds = min(older_than_seconds, LONGEST_AGO_SECONDS)

        async def forget(connection: Connection) -> int:
            forgotten = await remembered.forget(connection, age_seconds, most)
            return forgotten + await batches.forget(connection, age_seconds, most)

        return await self._transact(forget)

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`."""
        await self._transact(confirmed.forget, min(older_than_seconds, LONGEST_AGO_SECONDS), most)

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits from the shared quota; see `Coordination.take_quota`."""
        return await self._transact(operations.take_quota, requests, per_minute=per_minute, ahead_seconds=ahead_seconds)

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep or remove a note; see `Coordination.write_note`."""
        await self._transact(notes.write, name, text)

    async def read_note(self, name: str) -> Note | None:
        """Return one note; see `Coordination.read_note`."""
        return await self._transact(notes.read, name)

    async def read_notes(self) -> dict[str, Note]:
        """Return all notes; see `Coordination.read_notes`."""
        return await self._transact(notes.read_all)

    async def unix_time(self) -> float:
        """Return the server's time; see `Coordination.unix_time`."""
        return await self._transact(notes.unix_time)

    async def record_sample(self, sample: Sample) -> None:
        """Keep a sample; see `History.record_sample`."""
        await self._transact(history.record, sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes; see `History.history`."""
        return await self._transact(history.read, checked(minutes))

    async def close(self) -> None:
        """Finish the work under way, and close the connections."""
        await self._listener.close()
        while self._background:
            await asyncio.wait(self._background)
        await self._connections.close()

    async def _claim(
        self, limit: int, lease_seconds: float, owner: str, place: Place, confirmed_seconds: float
    ) -> list[Claim]:
        kind = self._urgent_floor if place == "urgent" else self._floor
        floor, opened = kind.visible_at, self._opened
        log = self._log = self._log.covering(confirmed_seconds)
        under_way: list[Claim] = []

        async def claim(connection: Connection) -> Claimed:
            nonlocal log
            if self._connections.opened > opened:  # a new server may have another log
                log = self._log = LogIndexWithGaps().covering(confirmed_seconds)
                self._log_from = 0
            await self._unanswered_claims.give_back(connection)
            claimed = await operations.claim(
                connection,
                limit,
                floor=floor,
                lease_seconds=lease_seconds,
                owner=owner,
                place=place,
                log=log if confirmed_seconds > 0 else None,
                confirmed_seconds=confirmed_seconds,
            )
            under_way[:] = claimed.claims
            return claimed

        try:
            with kind.everywhere.made() if floor is None else nullcontext():
                claimed = await self._transact(claim)
        except BaseException:
            self._unanswered_claims.add(under_way)
            kind.forget()  # other claims passed over the targets that this one held
            self._log = LogIndexWithGaps()  # and a new server may have another log
            raise
        self._unanswered_claims.forget()
        self._opened, is_new = self._connections.opened, self._connections.opened > opened
        log.learn(claimed.news, now=claimed.now)
        if claimed.look is not None:  # a look elsewhere says nothing about where the oldest targets are
            kind.claimed(claimed.look)
        if is_new:  # possibly to a new server, which knows less
            for each in (self._floor, self._urgent_floor):
                if each is not kind or floor is not None:
                    each.forget()
        if claimed.look is not None and not claimed.claims and kind.is_below(floor):
            return await self._claim(limit, lease_seconds, owner, place, confirmed_seconds)
        return claimed.claims

    async def _take_back(self, claiming: asyncio.Task[list[Claim]]) -> None:
        with suppress(QueueError):  # otherwise the leases run out
            if claims := await claiming:
                await self._transact(operations.release, claims)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work that no caller waits for any longer. `close` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _read_pending(
        self, selection: PendingSelection, place: pending.Place | None
    ) -> tuple[list[QueuedChange], pending.Place | None]:
        return await self._transact(pending.read, selection, place)

    async def _withdraw(
        self, selection: PendingSelection, place: pending.Place | None
    ) -> tuple[Withdrawn, pending.Place | None]:
        withdrawn = await self._transact(pending.withdraw, selection, place)
        self._work.set()
        return withdrawn

    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        return await self._transact(letters.read, stretch)

    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        return await self._transact(letters.retry, stretch)

    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        return await self._transact(letters.purge, stretch)
