"""One shard's operations: what goes into the library's functions, and what comes out of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from worker.changes import MetadataChange
from worker.queue.base import (
    MAX_CHANGES_PER_CLAIM,
    REASONS,
    RECENT_MINUTES,
    Claim,
    DeadLetter,
    DeadSelection,
    Death,
    Note,
    QueuedChange,
    QueueStatus,
    QueueUnusable,
    Settlement,
    json_text,
    storable,
)
from worker.queue.history import Sample
from worker.queue.permits import Grant, interval_seconds
from worker.queue.redis.server import Server

PAGE = 250  # dead letters that are read, retried or purged at once

_STATUS_PAGE = 1_000  # targets that are looked at in one call
# A server takes 512 MiB in one piece (proto-max-bulk-len).
_MAX_PUT_BYTES = 256 * 1024 * 1024
_US_PER_SECOND = 1_000_000
_US_PER_MINUTE = 60 * _US_PER_SECOND
_LAST_NUMBER = 2**53  # Lua's numbers are exact up to here

_Change = tuple[int, int, str, str, str]

_pack = msgspec.msgpack.Encoder(enc_hook=str.__str__).encode  # a string of a subclass is a string
_claimed = msgspec.msgpack.Decoder(tuple[int, int, list[tuple[str, int, list[_Change]]]]).decode
_due = msgspec.msgpack.Decoder(tuple[int, int | None]).decode
_status = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, int, int, list[int]]).decode
_letters = msgspec.msgpack.Decoder(tuple[int, list[tuple[int, int, str, _Change, str]]]).decode
_notes = msgspec.msgpack.Decoder(tuple[int, list[tuple[str, tuple[str, int]]]]).decode
_history = msgspec.msgpack.Decoder(
    tuple[int, list[tuple[int, int, int] | Literal[False]], list[Sample | Literal[False]]]
).decode
_fate = msgspec.json.Decoder(tuple[str, int, int | None, str | None, str | None]).decode
_bulk = msgspec.msgpack.Decoder(tuple[int, int, int]).decode


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one call did to dead letters.

    Args:
        last: number of the last letter looked at; None when there was none left.
        done: how many were retried or purged.
        kept: how many had to stay.
    """

    last: int | None
    done: int
    kept: int


@dataclass(slots=True)
class _Caller:
    """Names a sequence of claims, one at a time, so that the server can tell those whose answer was lost."""

    name: str
    called: int = 0
    answered: int = 0


class Shard:
    """A part of the queue that lies on one node whole.

    Args:
        index: from 0.
        shards: how many there are.
    """

    def __init__(self, server: Server, prefix: str, index: int, shards: int) -> None:
        self._server = server
        self._base = shard_base(prefix, index)
        self._place = (index, shards)
        self._callers: list[_Caller] = []  # that claim nothing at the moment

    def __repr__(self) -> str:
        return f"<Shard {self._base}>"

    async def put(self, changes: Sequence[MetadataChange]) -> int:
        """Append the changes, all or none, but for those whose change_id is pending; gives how many that were."""
        packed = _pack(
            [
                (change.completion_id, change.change_id or "", change.mode, json_text(dict(change.metadata)))
                for change in changes
            ]
        )
        if len(packed) > _MAX_PUT_BYTES:
            raise QueueUnusable("a Redis queue takes no more than 256 MiB at once: put fewer changes in one call")
        added: int = await self._server.call("put", self._base, packed, *self._place)
        return added

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        """Lease the oldest due targets, under one new lease number; what an earlier claim lost is given back first."""
        caller = self._callers.pop() if self._callers else _Caller(uuid.uuid4().hex)
        try:
            return await self._claim(caller, limit, lease_seconds, owner)
        finally:
            self._callers.append(caller)

    async def give_back(self) -> None:
        """Give back what claims have taken whose answer never came."""
        for caller in self._callers:
            if caller.called > caller.answered:
                await self._claim(caller, limit=0, lease_seconds=0, owner="")

    async def _claim(self, caller: _Caller, limit: int, lease_seconds: float, owner: str) -> list[Claim]:
        caller.called += 1
        packed = await self._server.call(
            "claim",
            self._base,
            limit,
            _us(lease_seconds),
            storable(owner) or "",
            MAX_CHANGES_PER_CLAIM,
            caller.name,
            caller.called,
            caller.answered,
        )
        caller.answered = caller.called
        now, lease, claimed = _claimed(packed)
        return [
            Claim(completion_id, lease, attempts, _changes(completion_id, changes), _age_seconds(now, changes[0][1]))
            for completion_id, attempts, changes in claimed
        ]

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[int]:
        """Move the deadline of the leases that hold; give the positions of the claims whose lease does not."""
        keys = _pack([(claim.completion_id, claim.lease) for claim in claims])
        lost: list[int] = await self._server.call("extend", self._base, keys, _us(lease_seconds))
        return lost

    async def settle(self, settlements: Sequence[Settlement]) -> list[int]:
        """Carry out the settlements whose lease holds; give the positions of the others."""
        packed = _pack(
            [
                (
                    settlement.claim.completion_id,
                    settlement.claim.lease,
                    len(settlement.claim.changes),
                    list(settlement.done()),
                    [(death.number, death.reason, json_text(_told(death))) for death in settlement.dead],
                    _us(settlement.delay_seconds),
                    settlement.attempts,
                    storable(settlement.error) or "",
                    len(settlement.applied),
                    len(settlement.unchanged),
                )
                for settlement in settlements
            ]
        )
        stale: list[int] = await self._server.call("settle", self._base, packed, *self._place)
        return stale

    async def next_due_seconds(self) -> float | None:
        """Tell when there is work."""
        now, visible_at = _due(await self._server.call("next_due", self._base))
        return None if visible_at is None else (visible_at - now) / _US_PER_SECOND

    async def status(self) -> QueueStatus:
        """Count what there is; what is leased or waits is gone through page by page."""
        in_flight = waiting = offset = 0
        while True:
            packed = await self._server.call("status", self._base, offset, _STATUS_PAGE)
            offset, page_in_flight, page_waiting, now, pending, dead, oldest, history = _status(packed)
            in_flight += page_in_flight
            waiting += page_waiting
            if offset < 0:
                break
        since_minute = now // _US_PER_MINUTE - RECENT_MINUTES + 1
        done_by_minute = zip(history[::2], history[1::2], strict=True)
        recently_done = sum(done for minute, done in done_by_minute if minute >= since_minute)
        return QueueStatus(
            pending=pending,
            in_flight=in_flight,
            waiting=waiting,
            dead=dead,
            oldest_pending_seconds=None if oldest < 0 else _age_seconds(now, oldest),
            recent_per_second=recently_done * _US_PER_SECOND / (now - since_minute * _US_PER_MINUTE),
        )

    async def newest_dead_letter(self) -> int:
        """Give the last letter's number, 0 when there is none."""
        number: int = await self._server.call("newest_dead", self._base)
        return number

    async def dead_letters(self, selection: DeadSelection, *, after: int) -> tuple[list[DeadLetter], int | None]:
        """Give one page of the letters that match, beginning behind the number `after`, and where the page ends."""
        arguments = self._selection(selection, after, _LAST_NUMBER)
        last, letters = _letters(await self._server.call("dead_letters", self._base, arguments))
        return [_letter(*letter) for letter in letters], last or None

    async def retry_dead(self, selection: DeadSelection, *, after: int, until: int) -> Bulk:
        """Make the next letters that match changes again, but for those whose change_id is pending."""
        arguments = self._selection(selection, after, until)
        last, retried, kept = _bulk(await self._server.call("retry_dead", self._base, arguments, *self._place))
        return Bulk(last or None, retried, kept)

    async def purge_dead(self, selection: DeadSelection, *, after: int, until: int) -> Bulk:
        """Delete the next letters that match."""
        arguments = self._selection(selection, after, until)
        last, purged, kept = _bulk(await self._server.call("purge_dead", self._base, arguments))
        return Bulk(last or None, purged, kept)

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits of the shared rate."""
        interval_us = repr(interval_seconds(per_minute) * _US_PER_SECOND)
        arguments = (count, interval_us, _us(ahead_seconds))
        permits, wait_us = await self._server.call("take_permits", self._base, *arguments)
        return Grant(permits, wait_us / _US_PER_SECOND)

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep the note, or remove it."""
        texts = () if text is None else (storable(text) or "",)
        await self._server.call("write_note", self._base, storable(name) or "", *texts)

    async def read_notes(self) -> dict[str, Note]:
        """Give all notes by name."""
        now, notes = _notes(await self._server.call("read_notes", self._base))
        return {name: Note(text, _age_seconds(now, written_at)) for name, (text, written_at) in notes}

    async def record_sample(self, sample: Sample) -> None:
        """Keep the sample as this minute's last."""
        await self._server.call("record_sample", self._base, _pack(sample))

    async def history(self, minutes: int) -> tuple[int, list[tuple[int, ...]], list[tuple[int, Sample]]]:
        """Give the minute that runs; of the last ones, what was done; and the samples; both by minute."""
        newest, done, samples = _history(await self._server.call("history", self._base, minutes))
        since = newest - minutes + 1
        return (
            newest,
            [(minute, *counts) for minute, counts in enumerate(done, since) if counts],
            [(minute, sample) for minute, sample in enumerate(samples, since) if sample],
        )

    async def dead_reasons(self) -> dict[str, int]:
        """Count the dead letters by reason."""
        counts: list[int] = await self._server.call("dead_reasons", self._base, *REASONS)
        return dict(zip(REASONS, counts, strict=True))

    def _selection(self, selection: DeadSelection, after: int, until: int) -> bytes:
        numbers = None
        if selection.numbers is not None:
            index, shards = self._place
            mine = {number for number in selection.numbers if number % shards == index and after < number <= until}
            numbers = sorted(mine)[:PAGE]
        return _pack([after, until, PAGE, numbers, storable(selection.completion_id), storable(selection.reason)])


def shard_base(prefix: str, index: int) -> str:
    """What the names of the shard's keys begin with. The braces, a hash tag, keep them on one node of a cluster."""
    return f"{{{prefix}:{index}}}"


def _told(death: Death) -> tuple[str, int, int | None, str | None, str | None]:
    return (death.reason, death.attempts, death.status, storable(death.error), storable(death.request_id))


def _changes(completion_id: str, changes: Sequence[_Change]) -> tuple[QueuedChange, ...]:
    return tuple(
        QueuedChange(number, completion_id, change_id or None, mode, metadata, enqueued_at / _US_PER_SECOND)
        for number, enqueued_at, change_id, mode, metadata in changes
    )


def _letter(number: int, died_at: int, completion_id: str, change: _Change, fate: str) -> DeadLetter:
    _, enqueued_at, change_id, mode, metadata = change
    reason, attempts, status, error, request_id = _fate(fate)
    return DeadLetter(
        number,
        completion_id,
        change_id or None,
        mode,
        metadata,
        enqueued_at / _US_PER_SECOND,
        reason,
        status,
        error,
        request_id,
        attempts,
        died_at / _US_PER_SECOND,
    )


def _age_seconds(now: int, then: int) -> float:
    return max(0, now - then) / _US_PER_SECOND


def _us(seconds: float) -> int:
    """Microseconds, the unit of the library's times."""
    return round(seconds * _US_PER_SECOND)
