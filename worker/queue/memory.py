"""The queue in memory: the contract in plain Python, for tests; its content ends with the process."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import msgspec

from worker.changes import MetadataChange
from worker.queue import confirmed
from worker.queue.base import Part, StoreBase, Stretch, last_number
from worker.queue.batch import (
    MAX_FINISHED_BATCHES,
    MAX_REMEMBERED,
    Batch,
    PendingSelection,
    Terms,
    Withdrawn,
    ends_by_batch,
)
from worker.queue.coordination import Note
from worker.queue.errors import QueueMisnamed
from worker.queue.history import KEPT_MINUTES, HistoryMinute, Sample, checked, every_minute
from worker.queue.letters import MOST_NUMBERS_TOLD, DeadLetter, DeadSelection, LetterCount, Revived
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
    Remembered,
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

T = TypeVar("T")


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
        self._dead: dict[int, DeadLetter] = {}
        self._change_ids: dict[str, QueuedChange] = {}  # pending changes, in order of arrival
        self._done_by_minute: dict[int, tuple[int, ...]] = {}  # applied, unchanged, dead, superseded, withdrawn
        self._samples: dict[int, Sample] = {}
        self._confirmed: dict[str, tuple[float, dict[str, str]]] = {}  # time and map, by completion, oldest first
        self._batches: dict[str, Batch] = {}  # in order of creation
        self._settled: dict[str, float] = {}  # time by change_id, oldest first
        self._newest: dict[str, tuple[float, float]] = {}  # time and as_of by completion, oldest first
        self._last_change = self._last_letter = self._last_lease = 0
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
        return f"<MemoryQueue [{len(self._targets)} completions, {len(self._dead)} dead letters]>"

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        met = []
        put = Put(terms.batch)
        for position, change in enumerate(changes):
            pending = self._change_ids.get(change.change_id or "")
            if pending is not None:
                met.append((position, pending.completion_id, pending.mode, pending.metadata))
                if pending.batch != terms.batch:
                    put.elsewhere[position] = pending.batch
            elif change.change_id in self._settled:
                put.settled.add(position)
            else:
                self._append(_queued(change, terms.batch), is_urgent=terms.urgent)
                put.added += 1
        if terms.batch is not None:
            self._count_in_batch(terms.batch, changes=put.added)
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
        known = {each: self._newest[each][1] for each in dated(claims) if each in self._newest}
        return with_newest(self._with_confirmed(claims, since=now - confirmed_seconds), known)

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
            self._bury(target, settlement)
            self._remove(target, settlement.done())
            for number, trials in settlement.trial_rows():
                target.changes[number] = msgspec.structs.replace(target.changes[number], trials=trials)
            self._end_lease(target, settlement)
        self._count(*ended(valid.values()))
        for name, ends in ends_by_batch(valid.values()).items():
            self._count_in_batch(name, **ends._asdict())
        if remember:
            self._remember(remembered_of(valid.values()))
        if keep_seconds > 0:
            self._confirm(valid.values(), since=self._clock() - keep_seconds)
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
            dead=len(self._dead),
            oldest_enqueued_at=oldest,
            recently_done=sum(
                sum(done[:4]) for minute, done in self._done_by_minute.items() if minute >= recent_since(now)
            ),
        )
        return status_of(counts, now=now)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Count the letters; see `DeadLetters.dead_reasons`."""
        letters = self._selected(Stretch(DeadSelection(), after=0, until=last_number(until)))
        newest = {letter.reason: letter.number for letter in letters}
        counts = Counter(letter.reason for letter in letters)
        return {reason: LetterCount(count, newest[reason]) for reason, count in counts.items()}

    async def batches(self, name: str | None = None) -> list[Batch]:
        """Return the batches; see `Batches.batches`."""
        return [batch for batch in reversed(self._batches.values()) if name in (None, batch.name)]

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete expired data; see `Batches.forget`."""
        since = self._clock() - older_than_seconds
        finished = [batch for batch in self._batches.values() if not batch.pending]
        too_many = len(finished) - MAX_FINISHED_BATCHES
        gone = [each.name for place, each in enumerate(finished) if place < too_many or each.last_heard_of_at < since]
        for name in gone[:most]:
            del self._batches[name]
        forgotten = len(gone[:most])
        times = {completion_id: settled_at for completion_id, (settled_at, _) in self._newest.items()}
        for kept, settled_at in ((self._settled, self._settled), (self._newest, times)):
            too_many = len(kept) - MAX_REMEMBERED
            old = [key for place, key in enumerate(kept) if place < too_many or settled_at[key] < since]
            for key in old[:most]:
                del kept[key]
            forgotten += len(old[:most])
        return forgotten

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`."""
        since = self._clock() - older_than_seconds
        for completion_id in [each for each, (written_at, _) in self._confirmed.items() if written_at <= since][:most]:
            del self._confirmed[completion_id]

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
        self._samples[self._minute()] = sample
        _forget(self._samples, self._minute())

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes; see `History.history`."""
        done = [(minute, *counts) for minute, counts in self._done_by_minute.items()]
        return every_minute(self._minute(), checked(minutes), done, self._samples.items())

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
                self._count_in_batch(change.batch, withdrawn=1)
            if not target.changes:
                del self._targets[change.completion_id]
        self._count(0, 0, 0, 0, withdrawn)
        return Withdrawn(withdrawn, len(selected) - withdrawn), None

    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        return Part(self._selected(stretch), None, self._last_letter)

    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        letters = self._selected(stretch)
        retried = kept = 0
        superseded = []
        for letter in letters:
            if letter.as_of is not None and letter.as_of < self._newest.get(letter.completion_id, (0, 0))[1]:
                superseded.append(letter.number)
            elif letter.change_id in self._change_ids or letter.change_id in self._settled:
                kept += 1
            else:
                self._append(_revived(letter))
                if letter.batch is not None:
                    self._take_from_dead(letter.batch)
                del self._dead[letter.number]
                retried += 1
        named = tuple(superseded[:MOST_NUMBERS_TOLD])
        return Part(Revived(retried, kept, len(superseded), named), None, self._last_letter)

    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        looked_at = [number for number in self._dead if stretch.after < number <= stretch.until]
        letters = self._selected(stretch)
        for letter in letters:
            del self._dead[letter.number]
        is_part = stretch.most is not None and len(looked_at) > stretch.most
        return Part(len(letters), looked_at[stretch.most - 1] if is_part and stretch.most else None, self._last_letter)

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

    def _count_in_batch(self, name: str, *, changes: int = 0, **ends: int) -> None:
        """Add to a batch's counts; create the batch if it does not exist (any more)."""
        now = self._clock()
        batch = self._batches.get(name) or Batch(name, now, 0)
        counts = {end: getattr(batch, end) + count for end, count in ends.items()}
        if any(ends.values()):
            counts |= {"first_done_at": batch.first_done_at or now, "last_done_at": now}
        self._batches[name] = replace(
            batch, changes=batch.changes + changes, last_put_at=now if not ends else batch.last_put_at, **counts
        )

    def _take_from_dead(self, name: str) -> None:
        """Count a letter of the batch as pending again; recreate the batch if it was forgotten meanwhile."""
        if name in self._batches and self._batches[name].dead:
            self._batches[name] = replace(self._batches[name], dead=self._batches[name].dead - 1)
        else:
            self._count_in_batch(name, changes=1)

    def _remember(self, remembered: Remembered) -> None:
        now = self._clock()
        for change_id in remembered.change_ids:
            self._settled.pop(change_id, None)
            self._settled[change_id] = now
        for completion_id, as_of in remembered.as_of.items():
            _, before = self._newest.pop(completion_id, (now, as_of))
            self._newest[completion_id] = now, max(before, as_of)

    def _confirm(self, settlements: Iterable[Settlement], *, since: float) -> None:
        for completion_id, metadata in confirmed.confirmed_by(settlements).items():
            self._confirmed.pop(completion_id, None)
            self._confirmed[completion_id] = self._clock(), dict(metadata)
        while self._confirmed:
            completion_id, (written_at, _) = next(iter(self._confirmed.items()))
            if written_at > since and len(self._confirmed) <= confirmed.MAX_UPDATES:
                break
            if written_at > since:
                self._warn_of_a_short_log()
            del self._confirmed[completion_id]

    def _with_confirmed(self, claims: Sequence[Claim], *, since: float) -> list[Claim]:
        found = {each: self._confirmed.get(each, (since, {})) for each in confirmed.merged_first(claims)}
        maps = {each: dict(metadata) for each, (written_at, metadata) in found.items() if written_at > since}
        return confirmed.with_confirmed(claims, maps)

    def _held(self, claim: Claim) -> _Target | None:
        """The claim's target, if its lease holds."""
        target = self._targets.get(claim.completion_id)
        return target if target is not None and target.lease == claim.lease else None

    def _bury(self, target: _Target, settlement: Settlement) -> None:
        for death in settlement.dead:
            number, reason, attempts, status, error, request_id = death.row()
            change = target.changes[number]
            self._last_letter += 1
            self._dead[self._last_letter] = DeadLetter(
                self._last_letter,
                change.completion_id,
                change.change_id,
                change.mode,
                change.metadata,
                change.enqueued_at,
                reason,
                status,
                error,
                request_id,
                attempts,
                died_at=self._clock(),
                as_of=change.as_of,
                batch=change.batch,
            )

    def _remove(self, target: _Target, numbers: Iterable[int]) -> None:
        for number in numbers:
            change = target.changes.pop(number)
            target.urgent.discard(number)
            self._change_ids.pop(change.change_id or "", None)

    def _count(self, applied: int, unchanged: int, dead: int, superseded: int, withdrawn: int = 0) -> None:
        now = applied, unchanged, dead, superseded, withdrawn
        before = self._done_by_minute.get(self._minute(), (0, 0, 0, 0, 0))
        self._done_by_minute[self._minute()] = tuple(map(sum, zip(before, now, strict=True)))
        _forget(self._done_by_minute, self._minute())

    def _minute(self) -> int:
        return int(self._clock() // 60)

    def _end_lease(self, target: _Target, settlement: Settlement) -> None:
        if target.changes:
            target.visible_at = self._clock() + settlement.delay_seconds
            target.lease = None
        else:
            del self._targets[settlement.claim.completion_id]

    def _selected(self, stretch: Stretch) -> list[DeadLetter]:
        selection, now = stretch.selection, self._clock()
        shortest, longest = selection.ages or (-math.inf, math.inf)
        letters = [
            letter
            for letter in self._dead.values()
            if stretch.after < letter.number <= stretch.until
            and (selection.numbers is None or letter.number in selection.numbers)
            and selection.completion_id in (None, letter.completion_id)
            and selection.reason in (None, letter.reason)
            and selection.batch in (None, letter.batch)
        ]
        return [letter for letter in letters[: stretch.most] if shortest <= now - letter.died_at <= longest]


def _queued(change: MetadataChange, batch: str | None) -> QueuedChange:
    """Return the change in its stored form, without number and time."""
    metadata = json_text(change.metadata)
    return QueuedChange(
        0, change.completion_id, change.change_id, change.mode, metadata, 0.0, as_of=change.as_of, batch=batch
    )


def _revived(letter: DeadLetter) -> QueuedChange:
    """Return a letter's change in its stored form, without number and time."""
    return QueuedChange(
        0,
        letter.completion_id,
        letter.change_id,
        letter.mode,
        letter.metadata,
        0.0,
        as_of=letter.as_of,
        batch=letter.batch,
    )


def _forget(by_minute: dict[int, T], minute: int) -> None:
    """Delete minutes older than a day."""
    for earlier in [each for each in by_minute if each < minute - KEPT_MINUTES]:
        del by_minute[earlier]


def _changes_of(targets: Iterable[_Target]) -> int:
    return sum(len(target.changes) for target in targets)
