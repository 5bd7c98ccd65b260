"""The calls of the queue in memory, and what is pending in it."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from worker.changes import MetadataChange
from worker.queue.base import Part, StoreBase, Stretch
from worker.queue.batch import Batch, PendingSelection, Terms, Withdrawn, ends_by_batch
from worker.queue.coordination import Note
from worker.queue.errors import QueueMisnamed
from worker.queue.history import HistoryMinute, Sample
from worker.queue.letters import MOST_NUMBERS_TOLD, DeadLetter, LetterCount, Revived
from worker.queue.memory.batches import BatchCounts
from worker.queue.memory.confirmed import ConfirmedMaps
from worker.queue.memory.letters import Letters, revived
from worker.queue.memory.minutes import Minutes
from worker.queue.memory.remembered import Done
from worker.queue.pending import (
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
from worker.queue.quota import Grant, grant
from worker.queue.rows import (
    Counts,
    Put,
    claims_of,
    conflicts_among,
    dated,
    ended,
    first_words,
    holders_of,
    microseconds,
    recent_since,
    remembered_of,
    status_of,
    with_newest,
)
from worker.queue.text import json_text, storable


@dataclass(slots=True)
class _Target:
    """A completion with pending changes, oldest first; `lease` is None while it is not claimed.

    Args:
        urgent: the numbers of the urgent ones.
    """

    visible_at: float
    lease: int | None = None
    owner: str = ""
    changes: dict[int, QueuedChange] = field(default_factory=dict)
    urgent: set[int] = field(default_factory=set)


class MemoryQueue(StoreBase):
    """A queue that ends with its process.

    Args:
        clock: Unix time, seconds.
    """

    warnings: tuple[str, ...] = ("this queue is in memory: what it holds ends with its process",)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._targets: dict[str, _Target] = {}
        self._letters = Letters()
        self._change_ids: dict[str, QueuedChange] = {}  # pending changes, in order of arrival
        self._minutes = Minutes()
        self._confirmed = ConfirmedMaps()
        self._batches = BatchCounts()
        self._done = Done()
        self._last_change = self._last_lease = 0
        self._quota_due_at = 0.0
        self._notes: dict[str, tuple[str, float]] = {}

    @classmethod
    async def open(cls, _url: str = "memory:", *, timeout_seconds: float = 0.0, create: bool = True) -> Self:  # noqa: ARG003 -- it answers at once, and never exists before
        """Create an empty queue."""
        return cls()

    @staticmethod
    def migration_sql() -> str:
        """Raise: there is no schema.

        Raises:
            QueueMisnamed: always.
        """
        raise QueueMisnamed("a queue in memory has no schema")

    def __repr__(self) -> str:
        return f"<MemoryQueue [{len(self._targets)} completions, {len(self._letters)} dead letters]>"

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        met = []
        put = Put(terms.batch)
        for position, change in enumerate(changes):
            pending = self._change_ids.get(change.change_id or "")
            if pending is not None:
                met.append((position, pending.completion_id, pending.mode, pending.metadata))
                if pending.batch != terms.batch:
                    put.elsewhere[position] = pending.batch
            elif self._done.is_settled(change.change_id):
                put.settled.add(position)
            else:
                self._append(_queued(change, terms.batch), is_urgent=terms.urgent)
                put.added += 1
        if terms.batch is not None:
            self._batches.add(terms.batch, self._clock(), changes=put.added)
        self._work.set()
        put.conflicts += conflicts_among(changes, met)
        return put.of(len(changes))

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Look for conflicts; see `Queue.conflicts`."""
        found = [(position, self._change_ids.get(each.change_id or "")) for position, each in enumerate(changes)]
        met = [(position, each.completion_id, each.mode, each.metadata) for position, each in found if each]
        return tuple(conflicts_among(changes, met))

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        """Lease due targets; see `Queue.claim`."""
        check_lease(lease_seconds)
        now = self._clock()
        due = [
            (target.visible_at, completion_id)
            for completion_id, target in self._targets.items()
            if bool(target.urgent) == (place == "urgent")
        ]
        due = [each for each in due if each[0] <= now]
        if place == "newest":  # the last that came: what was tried and put back is due later than what came meanwhile
            due = due[-1:]
        else:
            due.sort(key=lambda each: each[0])
            first, limit = (len(due) // 2, 1) if place == "middle" else (0, max(limit, 0))
            due = due[first:][:limit]
        if due:
            self._last_lease = max(self._last_lease + 1, microseconds(now))
        changes: list[QueuedChange] = []
        for _, completion_id in due:
            changes += list(self._targets[completion_id].changes.values())[:MAX_CHANGES_PER_CLAIM]
        leases = {completion_id: self._last_lease for _, completion_id in due}
        claims = claims_of(leases, changes, now=now)
        for claim in claims:
            target = self._targets[claim.completion_id]
            target.visible_at, target.lease, target.owner = now + lease_seconds, claim.lease, storable(owner)
        claims = self._confirmed.attached(claims, since=now - confirmed_seconds)
        return with_newest(claims, self._done.newest(dated(claims)))

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Extend the leases; see `Queue.extend`."""
        check_lease(lease_seconds)
        lost = []
        for claim in claims:
            if target := self._held(claim):
                target.visible_at = self._clock() + lease_seconds
            else:
                lost.append(claim)
        return lost

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        for settlement in settlements:
            settlement.check()  # raises before anything is changed
        held = {
            position: settlement.claim.completion_id
            for position, settlement in enumerate(settlements)
            if self._held(settlement.claim)
        }
        valid, stale = first_words(settlements, held)
        for completion_id, settlement in valid.items():
            target = self._targets[completion_id]
            for death in settlement.dead:
                self._letters.bury(target.changes[death.number], death, now=self._clock())
            self._remove(target, settlement.done())
            for number, trials in settlement.trial_rows():
                target.changes[number] = msgspec.structs.replace(target.changes[number], trials=trials)
            self._end_lease(target, settlement)
        self._minutes.count(self._minute(), ended(valid.values()))
        for name, ends in ends_by_batch(valid.values()).items():
            self._batches.add(name, self._clock(), **ends._asdict())
        if remember:
            self._done.add(remembered_of(valid.values()), self._clock())
        if keep_seconds > 0:
            now = self._clock()
            if self._confirmed.add(valid.values(), now, since=now - keep_seconds):
                self._warn_of_a_short_log()
        self._work.set()
        return stale

    async def next_due_seconds(self) -> float | None:
        """Return when work is due; see `Queue.next_due_seconds`."""
        visible_at = min((target.visible_at for target in self._targets.values()), default=None)
        return None if visible_at is None else visible_at - self._clock()

    async def status(self) -> QueueStatus:
        """Count the changes; see `Queue.status`."""
        now = self._clock()
        targets = self._targets.values()
        later = [target for target in targets if target.visible_at > now]
        oldest = min((change.enqueued_at for target in targets for change in target.changes.values()), default=None)
        counts = Counts(
            pending=_changes_of(targets),
            in_flight=_changes_of(target for target in later if target.lease is not None),
            waiting=_changes_of(target for target in later if target.lease is None),
            dead=len(self._letters),
            oldest_enqueued_at=oldest,
            recently_done=self._minutes.done_since(recent_since(now)),
        )
        return status_of(counts, now=now)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Count the letters; see `DeadLetters.dead_reasons`."""
        return self._letters.reasons(until, now=self._clock())

    async def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        return self._batches.read(name)

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete expired data; see `Batches.forget`."""
        since = self._clock() - older_than_seconds
        return self._batches.forget(since, most) + self._done.forget(since, most)

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`."""
        self._confirmed.forget(self._clock() - older_than_seconds, most)

    async def leases(self) -> list[LeaseHolder]:
        """Return the leases by worker; see `Queue.leases`."""
        now = self._clock()
        return holders_of(
            LeaseHolder(target.owner, 1, len(target.changes), target.lease / 1_000_000, until=target.visible_at)
            for target in self._targets.values()
            if target.visible_at > now and target.lease is not None
        )

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits from the shared quota; see `Coordination.take_quota`."""
        granted, self._quota_due_at = grant(
            self._quota_due_at, self._clock(), requests, per_minute=per_minute, ahead_seconds=ahead_seconds
        )
        return granted

    async def write_note(self, name: str, text: str | None) -> None:
        """Write or remove a note; see `Coordination.write_note`."""
        name, text = storable(name), storable(text)
        self._notes.pop(name, None)
        if text is not None:
            self._notes[name] = text, self._clock()

    async def read_note(self, name: str) -> Note | None:
        """Read one note; see `Coordination.read_note`."""
        return (await self.read_notes()).get(storable(name))

    async def read_notes(self) -> dict[str, Note]:
        """Read all notes; see `Coordination.read_notes`."""
        now = self._clock()
        return {name: Note.of(text, now - written_at) for name, (text, written_at) in self._notes.items()}

    async def unix_time(self) -> float:
        """Return the time; see `Coordination.unix_time`."""
        return self._clock()

    async def record_sample(self, sample: Sample) -> None:
        """Store a sample; see `History.record_sample`."""
        self._minutes.sample(self._minute(), sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes; see `History.history`."""
        return self._minutes.history(self._minute(), minutes)

    async def close(self) -> None:
        """Do nothing: no work is under way between two calls."""

    async def _read_pending(self, selection: PendingSelection, _place: None) -> tuple[list[QueuedChange], None]:
        return [
            change
            for target in self._targets.values()
            for change in target.changes.values()
            if selection.matches(change.completion_id, change.change_id, change.batch)
        ], None

    async def _withdraw(self, selection: PendingSelection, _place: None) -> tuple[Withdrawn, None]:
        selected, _ = await self._read_pending(selection, None)
        withdrawn = 0
        for change in selected:
            target = self._targets[change.completion_id]
            if target.lease is not None and target.visible_at > self._clock():
                continue
            withdrawn += 1
            target.lease = None  # the lease ran out; its worker's late settlement must not name deleted changes
            self._remove(target, [change.number])
            if change.batch is not None:
                self._batches.add(change.batch, self._clock(), withdrawn=1)
            if not target.changes:
                del self._targets[change.completion_id]
        self._minutes.count(self._minute(), (0, 0, 0, 0), withdrawn)
        return Withdrawn(withdrawn, len(selected) - withdrawn), None

    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        return Part(self._letters.selected(stretch, now=self._clock()), None, self._letters.last)

    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        retried = kept = 0
        superseded = []
        letters = self._letters.selected(stretch, now=self._clock())
        newest = self._done.newest(letter.completion_id for letter in letters)
        for letter in letters:
            if letter.as_of is not None and letter.as_of < newest.get(letter.completion_id, 0):
                superseded.append(letter.number)
            elif letter.change_id in self._change_ids or self._done.is_settled(letter.change_id):
                kept += 1
            else:
                self._append(revived(letter))
                if letter.batch is not None:
                    self._batches.take_from_dead(letter.batch, self._clock())
                self._letters.remove(letter.number)
                retried += 1
        named = tuple(superseded[:MOST_NUMBERS_TOLD])
        return Part(Revived(retried, kept, len(superseded), named), None, self._letters.last)

    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        return self._letters.purge(stretch, now=self._clock())

    def _append(self, change: QueuedChange, *, is_urgent: bool = False) -> None:
        """Store a change under the next number."""
        now = self._clock()
        self._last_change += 1
        stored = msgspec.structs.replace(change, number=self._last_change, enqueued_at=now, trials=None)
        target = self._targets.setdefault(stored.completion_id, _Target(visible_at=now))
        target.changes[stored.number] = stored
        if is_urgent:
            target.urgent.add(stored.number)
        if stored.change_id is not None:
            self._change_ids[stored.change_id] = stored

    def _held(self, claim: Claim) -> _Target | None:
        """The claim's target, if its lease holds."""
        target = self._targets.get(claim.completion_id)
        return target if target is not None and target.lease == claim.lease else None

    def _remove(self, target: _Target, numbers: Iterable[int]) -> None:
        for number in numbers:
            change = target.changes.pop(number)
            target.urgent.discard(number)
            self._change_ids.pop(change.change_id or "", None)

    def _minute(self) -> int:
        return int(self._clock() // 60)

    def _end_lease(self, target: _Target, settlement: Settlement) -> None:
        if target.changes:
            target.visible_at = self._clock() + settlement.delay_seconds
            target.lease = None
        else:
            del self._targets[settlement.claim.completion_id]


def _queued(change: MetadataChange, batch: str | None) -> QueuedChange:
    """Return the change in its stored form, without number and time."""
    metadata = json_text(change.metadata)
    return QueuedChange(
        0, change.completion_id, change.change_id, change.mode, metadata, 0.0, as_of=change.as_of, batch=batch
    )


def _changes_of(targets: Iterable[_Target]) -> int:
    return sum(len(target.changes) for target in targets)
