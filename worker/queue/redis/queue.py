"""The queue on a Redis or Valkey server: calls the Lua library's functions and converts their results."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Self

from worker.changes import MetadataChange
from worker.queue import confirmed
from worker.queue.base import Part, StoreBase, Stretch, last_number
from worker.queue.batch import MAX_FINISHED_BATCHES, MAX_REMEMBERED, Batch, PendingSelection, Terms, Withdrawn
from worker.queue.confirmed import LogIndex, LogRow
from worker.queue.coordination import Note
from worker.queue.errors import QueueError, no_queue
from worker.queue.history import HistoryMinute, Sample, checked, every_minute
from worker.queue.letters import MOST_NUMBERS_TOLD, REASONS, DeadLetter, LetterCount, Revived
from worker.queue.pending import (
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CALL,
    MAX_CHANGES_PER_CLAIM,
    Claim,
    LeaseHolder,
    Place,
    QueuedChange,
    QueueStatus,
    Settlement,
    Stored,
    check_lease,
)
from worker.queue.quota import Grant, interval_seconds
from worker.queue.redis import codec, pending
from worker.queue.redis.address import read_url
from worker.queue.redis.errors import unusable
from worker.queue.redis.library import Library, library, migration_sql
from worker.queue.redis.listener import Listener
from worker.queue.redis.pending import Walk
from worker.queue.redis.server import Server
from worker.queue.rows import RECENT_MINUTES, Counts, dated, holders_of, status_of, with_newest
from worker.queue.text import json_text, storable
from worker.queue.unanswered import UnansweredSettlements

SCHEMA = 1
_STATUS_PAGE = 1_000  # targets to examine in one call
_MOST_LOOKED_AT = 100_000  # leased or waiting targets: more would make a status too slow
_BATCHES_PAGE = 500
# A server accepts 512 MiB in one piece (proto-max-bulk-len).
_MAX_PUT_BYTES = 256 * 1024 * 1024


class RedisQueue(StoreBase):
    """A queue on Redis or Valkey, for any number of processes on many machines. Use `RedisQueue.open`.

    Args:
        warnings: possible losses by the server's settings, one sentence each.
    """

    def __init__(self, server: Server, warnings: tuple[str, ...]) -> None:
        super().__init__()
        self.warnings = warnings
        self._server = server
        self._listener = Listener(server, self._work)
        # Claims are numbered, one at a time, so that the server can recognise one whose answer was lost.
        self._caller = uuid.uuid4().hex
        self._claiming = asyncio.Lock()
        self._log = LogIndex()
        self._called = self._answered = self._heard = 0
        # Settlements are numbered, too; the server keeps its answers until they are acknowledged.
        self._unanswered = UnansweredSettlements[tuple[int, int]]()  # by the number of a call, and the position in it
        self._settled = 0
        self._heard_settled: list[int] = []

    @classmethod
    async def open(
        cls, url: str, *, timeout_seconds: float = 10.0, create: bool = True, functions: Library | None = None
    ) -> Self:
        """Open the queue; keys are created when needed.

        Args:
            url: ``redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]``, or ``rediss://`` for TLS; ``?prefix=NAME`` for
                several queues in one database.
            timeout_seconds: for every call to the server.
            create: accept a server without a queue.
            functions: the library; by default the queue's own, which uses the server's clock.

        Raises:
            QueueMisnamed: the URL has another form, or can never name a queue.
            QueueUnusable: the server cannot be used now.
            QueueUnavailable: the server does not answer.
        """
        server = Server(read_url(url), functions or library(), timeout_seconds)
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(server.close)
            warnings = await server.examine()
            if not create and not await server.has_queue():
                raise no_queue(server.address)
            schema = int(await server.call("open", SCHEMA))
            if schema > SCHEMA:
                what = f"a newer metasync wrote it (schema {schema}, this one knows {SCHEMA}); upgrade metasync"
                raise unusable(server.address, what)
            on_failure.pop_all()
        return cls(server, warnings)

    @staticmethod
    def migration_sql() -> str:
        """Return the library's source, for servers whose users may call functions but not load them."""
        return migration_sql()

    def __repr__(self) -> str:
        return f"<RedisQueue {self._server.address} [{'closed' if self._server.closed else 'open'}]>"

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        """Store the changes; a repeated put after a failure stores those without change_id twice."""
        packed = codec.pack_changes(changes)
        if len(packed) > _MAX_PUT_BYTES:
            raise QueueError("a Redis queue takes no more than 256 MiB at once: put fewer changes in one call")
        added, conflicts, told = await self._server.call("put", packed, terms.batch or "", int(terms.urgent))
        self._work.set()
        pending_in = {name.decode() or None: count for name, count in zip(told[::2], told[1::2], strict=True)}
        return Stored(added, len(changes) - added - len(conflicts), tuple(conflicts), pending_in)

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Look for conflicts; see `Queue.conflicts`."""
        return tuple(await self._server.call("conflicts", codec.pack_changes(changes)))

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        """Lease due targets under one new lease number; first release the claims of a lost answer."""
        check_lease(lease_seconds)
        async with self._claiming:
            self._called += 1
            terms = (
                max(0, limit),
                codec.microseconds(lease_seconds),
                MAX_CHANGES_PER_CLAIM,
                MAX_CHANGES_PER_CALL,
                MAX_BYTES_PER_CALL,
            )
            log = self._log = self._log.covering(confirmed_seconds)
            packed = await self._server.call(
                "claim",
                *terms,
                self._caller,
                self._called,
                self._heard,
                place,
                codec.microseconds(confirmed_seconds and log.seconds),
                log.last,
                storable(owner),
            )
            now, lease, claimed, found = codec.read_claimed(packed)
            claims = [
                Claim(
                    completion_id,
                    lease,
                    codec.changes_of(completion_id, changes),
                    codec.age_of(now, changes[0].enqueued_at),
                )
                for completion_id, changes in claimed
            ]
            if confirmed_seconds > 0:
                news = [
                    LogRow(number, number / codec.US_PER_SECOND, completion_ids) for number, completion_ids in found
                ]
                log.learn(news, now=now / codec.US_PER_SECOND)
                wanted = log.find(
                    confirmed.merged_first(claims), (), since=now / codec.US_PER_SECOND - confirmed_seconds
                )
                claims = await self._with_confirmed(claims, wanted)
            claims = await self._with_newest(claims)
            self._answered, self._heard = self._called, lease or self._heard
        return claims

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Extend the leases; see `Queue.extend`."""
        check_lease(lease_seconds)
        keys = codec.pack([claim.key for claim in claims])
        return [
            claims[position] for position in await self._server.call("extend", keys, codec.microseconds(lease_seconds))
        ]

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        packed = codec.pack([codec.told(settlement) for settlement in settlements])
        self._settled += 1
        number, heard = self._settled, self._heard_settled
        lost = sorted({call for call, _ in self._unanswered.calls(settlements)})
        whose = self._caller, number, codec.pack(heard), codec.pack(lost)
        try:
            is_cut_short, positions, answers = await self._server.call(
                "settle", packed, codec.microseconds(keep_seconds), confirmed.MAX_UPDATES, *whose, int(remember)
            )
        except BaseException:
            for position, settlement in enumerate(settlements):
                self._unanswered.add(settlement, (number, position))
            raise
        self._heard_settled = [*(each for each in self._heard_settled if each not in heard), number]
        arrived = {
            call: codec.read_positions(answer) for call, answer in zip(lost, answers, strict=True) if answer is not None
        }

        def stored(_: Settlement, said: tuple[int, int]) -> bool:
            call, position = said
            return call in arrived and position not in arrived[call]

        stale = self._unanswered.not_stored([settlements[position] for position in positions], stored)
        self._unanswered.forget(settlements)
        if lost:
            awaited = {call for call, _ in self._unanswered.remembered()}
            self._heard_settled += [call for call in lost if call not in awaited]
        if is_cut_short:
            self._warn_of_a_short_log()
        self._work.set()
        return stale

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Wait for this object's put, settle or retry_dead, or for other processes' put."""
        self._listener.ask()
        return await super().wait_for_work(timeout_seconds)

    async def next_due_seconds(self) -> float | None:
        """Return when work is due; see `Queue.next_due_seconds`."""
        now, *first = await self._server.call("next_due")
        return (first[0] - now) / codec.US_PER_SECOND if first else None

    async def status(self) -> QueueStatus:
        """Count the changes; only the latest leased and waiting targets are examined, page by page."""
        in_flight = waiting = offset = 0
        later = 1
        while offset < min(later, _MOST_LOOKED_AT):
            reply = await self._server.call("status", offset, _STATUS_PAGE, RECENT_MINUTES)
            later, page_in_flight, page_waiting, now, pending, dead, recently_done, *oldest = reply
            in_flight += page_in_flight
            waiting += page_waiting
            offset += _STATUS_PAGE
        oldest_enqueued_at = oldest[0] / codec.US_PER_SECOND if oldest else None
        is_estimate = later > offset
        if is_estimate:  # assume the same average for the others
            later_changes = min(pending, round((in_flight + waiting) * later / offset))
            in_flight = round(later_changes * in_flight / max(in_flight + waiting, 1))
            waiting = later_changes - in_flight
        counts = Counts(pending, in_flight, waiting, dead, oldest_enqueued_at, recently_done, is_estimate)
        return status_of(counts, now=now / codec.US_PER_SECOND)

    async def leases(self) -> list[LeaseHolder]:
        """Return the leases by worker, read page by page."""
        held: list[LeaseHolder] = []
        offset, later = 0, 1
        while offset < later:
            later, page = codec.read_holders(await self._server.call("leases", offset, _STATUS_PAGE))
            held += [
                LeaseHolder(owner, completions, changes, since / codec.US_PER_SECOND, until / codec.US_PER_SECOND)
                for owner, completions, changes, since, until in page
            ]
            offset += _STATUS_PAGE
        return holders_of(held)

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take of the shared quota; see `Coordination.take_quota`."""
        interval_us = repr(interval_seconds(per_minute) * codec.US_PER_SECOND)
        granted, wait_us = await self._server.call(
            "take_quota", requests, interval_us, codec.microseconds(ahead_seconds)
        )
        return Grant(granted, wait_us / codec.US_PER_SECOND)

    async def write_note(self, name: str, text: str | None) -> None:
        """Write or remove a note; see `Coordination.write_note`."""
        texts = () if text is None else (storable(text),)
        await self._server.call("write_note", storable(name), *texts)

    async def read_note(self, name: str) -> Note | None:
        """Read one note; see `Coordination.read_note`."""
        now, packed = await self._server.call("read_note", storable(name))
        if packed is None:
            return None
        text, written_at = codec.read_note(packed)
        return Note.of(text, (now - written_at) / codec.US_PER_SECOND)

    async def read_notes(self) -> dict[str, Note]:
        """Read all notes; see `Coordination.read_notes`."""
        now, found = await self._server.call("read_notes")
        notes = {name.decode(): codec.read_note(packed) for name, packed in zip(found[::2], found[1::2], strict=True)}
        return {
            name: Note.of(text, (now - written_at) / codec.US_PER_SECOND) for name, (text, written_at) in notes.items()
        }

    async def unix_time(self) -> float:
        """Return the server's time; see `Coordination.unix_time`."""
        now, _ = await self._server.call("read_notes")
        return float(now) / codec.US_PER_SECOND

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample; see `History.record_sample`."""
        await self._server.call("record_sample", json_text(sample))

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes; see `History.history`."""
        newest, found = codec.read_minutes(await self._server.call("history", checked(minutes)))
        by_minute = list(enumerate(found, newest - minutes + 1))
        done = [(minute, *counts) for minute, (*counts, _) in by_minute]
        samples = [(minute, codec.read_sample(sample)) for minute, (*_, sample) in by_minute if sample]
        return every_minute(newest, minutes, done, samples)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Count the letters; see `DeadLetters.dead_reasons`."""
        counts: list[tuple[int, int]] = await self._server.call("dead_reasons", last_number(until), *REASONS)
        return {
            reason: LetterCount(letters, newest)
            for reason, (letters, newest) in zip(REASONS, counts, strict=True)
            if letters
        }

    async def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        if name is not None and not pending.is_findable(name):
            return []
        found: list[Batch] = []
        before: str | int = "+inf"
        while True:
            page = codec.read_batches(await self._server.call("batches", before, _BATCHES_PAGE, name or ""))
            found += [codec.batch_of(each, told) for _, each, told in page]
            if name is not None or not page:
                return found
            before = page[-1][0]

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete expired data; see `Batches.forget`. It takes many calls."""
        older_than_us = codec.microseconds(older_than_seconds)
        forgotten: int = await self._server.call("forget_batches", older_than_us, MAX_FINISHED_BATCHES, most)
        for memory in ("settled", "newest"):
            left, is_over = most, False
            while left and not is_over:
                gone, is_over = await self._server.call(
                    "forget_remembered", memory, older_than_us, MAX_REMEMBERED, left
                )
                left -= gone
            forgotten += most - left
        return forgotten

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`."""
        await self._server.call("expire_confirmed", codec.microseconds(older_than_seconds), most)

    async def close(self) -> None:
        """Release the claims of a lost answer, and close the connections."""
        if self._server.closed:
            return
        await self._listener.close()
        try:
            if self._called > self._answered:
                with suppress(QueueError):
                    await self.claim(0, lease_seconds=0, owner="")
        finally:
            await self._server.close()

    async def _with_confirmed(self, claims: list[Claim], wanted: dict[int, list[str]]) -> list[Claim]:
        """Return the claims with confirmed maps, from these entries of the log."""
        if not wanted:
            return claims
        maps = dict(codec.read_maps(await self._server.call("confirmed", codec.pack(list(wanted.items())))))
        return confirmed.with_confirmed(claims, {each: codec.read_map(text) for each, text in maps.items()})

    async def _with_newest(self, claims: list[Claim]) -> list[Claim]:
        """Return the claims with the newest applied `as_of`."""
        completion_ids = dated(claims)
        if not completion_ids:
            return claims
        return with_newest(claims, dict(codec.read_newest(await self._server.call("newest_as_of", *completion_ids))))

    async def _read_pending(
        self, selection: PendingSelection, walk: Walk | None
    ) -> tuple[list[QueuedChange], Walk | None]:
        return await pending.read(self._server, selection, walk)

    async def _withdraw(self, selection: PendingSelection, walk: Walk | None) -> tuple[Withdrawn, Walk | None]:
        withdrawn = await pending.withdraw(self._server, selection, walk)
        self._work.set()
        return withdrawn

    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        after, newest, letters = codec.read_letters(
            await self._server.call("dead_letters", codec.pack_selection(stretch))
        )
        return Part([codec.letter_of(letter) for letter in letters], after or None, newest)

    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        after, newest, counts = codec.read_revived(await self._server.call("retry_dead", codec.pack_selection(stretch)))
        retried, kept, superseded = counts
        named = tuple(superseded[:MOST_NUMBERS_TOLD])
        return Part(Revived(retried, kept, len(superseded), named), after or None, newest)

    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        after, newest, purged = codec.read_purged(await self._server.call("purge_dead", codec.pack_selection(stretch)))
        return Part(purged, after or None, newest)
