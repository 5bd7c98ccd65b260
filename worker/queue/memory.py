"""The queue in memory: the contract in plain Python, for tests; it ends with its process."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from worker.changes import MetadataChange
from worker.queue.base import (
    MAX_CHANGES_PER_CLAIM,
    RECENT_MINUTES,
    Claim,
    DeadLetter,
    DeadSelection,
    Note,
    QueuedChange,
    QueueStatus,
    Revived,
    Settlement,
    Stored,
    json_text,
    storable,
)
from worker.queue.history import KEPT_MINUTES, HistoryMinute, Sample, checked, every_minute
from worker.queue.permits import Grant, grant

T = TypeVar("T")


@dataclass(slots=True)
class _Target:
    """A completion with pending changes, oldest first; `lease` is None while nobody holds it."""

    visible_at: float
    lease: int | None = None
    attempts: int = 0
    changes: dict[int, QueuedChange] = field(default_factory=dict)


class MemoryQueue:
    """A queue that lives and dies with its process.

    Args:
        clock: Unix time, seconds.
    """

    warnings: tuple[str, ...] = ("this queue is in memory: what it holds ends with its process",)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._targets: dict[str, _Target] = {}
        self._dead: dict[int, DeadLetter] = {}
        self._change_ids: set[str] = set()  # of the pending changes
        self._done_by_minute: dict[int, list[int]] = {}  # applied, unchanged, dead
        self._samples: dict[int, Sample] = {}
        self._last_change = self._last_letter = self._last_lease = 0
        self._permit_due_at = 0.0
        self._notes: dict[str, tuple[str, float]] = {}
        self._work = asyncio.Event()

    def __repr__(self) -> str:
        return f"<MemoryQueue [{len(self._targets)} completions, {len(self._dead)} dead letters]>"

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        """Store the changes; see `Queue.put`."""
        added = 0
        for change in changes:
            if change.change_id not in self._change_ids:
                metadata = json_text(dict(change.metadata))
                self._append(change.completion_id, change.change_id, change.mode, metadata)
                added += 1
        self._work.set()
        return Stored(added, len(changes) - added)

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:  # noqa: ARG002 -- nobody looks at owners here
        """Lease due targets; see `Queue.claim`."""
        now = self._clock()
        due = [(target.visible_at, completion_id) for completion_id, target in self._targets.items()]
        due = sorted((each for each in due if each[0] <= now), key=lambda each: each[0])[: max(limit, 0)]
        self._last_lease += 1
        claims = []
        for _, completion_id in due:
            target = self._targets[completion_id]
            target.visible_at, target.lease = now + lease_seconds, self._last_lease
            changes = tuple(target.changes.values())[:MAX_CHANGES_PER_CLAIM]
            age_seconds = max(0.0, now - changes[0].enqueued_at)
            claims.append(Claim(completion_id, self._last_lease, target.attempts, changes, age_seconds))
        return claims

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run on; see `Queue.extend`."""
        lost = []
        for claim in claims:
            if target := self._held(claim):
                target.visible_at = self._clock() + lease_seconds
            else:
                lost.append(claim)
        return lost

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """End the leases; see `Queue.settle`."""
        done = [settlement.done() for settlement in settlements]
        stale = []
        for settlement, numbers in zip(settlements, done, strict=True):
            if target := self._held(settlement.claim):
                self._bury(target, settlement)
                self._remove(target, numbers)
                self._count(settlement)
                self._end_lease(target, settlement)
            else:
                stale.append(settlement)
        self._work.set()
        return stale

    async def next_due_seconds(self) -> float | None:
        """Tell when there is work; see `Queue.next_due_seconds`."""
        visible_at = min((target.visible_at for target in self._targets.values()), default=None)
        return None if visible_at is None else visible_at - self._clock()

    async def wait_for_work(self, timeout_seconds: float) -> None:
        """Wait for put, settle or retry_dead."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        self._work.clear()

    async def status(self) -> QueueStatus:
        """Count what there is; see `Queue.status`."""
        now = self._clock()
        targets = self._targets.values()
        later = [target for target in targets if target.visible_at > now]
        oldest = min((change.enqueued_at for target in targets for change in target.changes.values()), default=None)
        since_minute = int(now // 60) - RECENT_MINUTES + 1
        recently_done = sum(sum(done) for minute, done in self._done_by_minute.items() if minute >= since_minute)
        return QueueStatus(
            pending=_changes_of(targets),
            in_flight=_changes_of(target for target in later if target.lease is not None),
            waiting=_changes_of(target for target in later if target.lease is None),
            dead=len(self._dead),
            oldest_pending_seconds=None if oldest is None else max(0.0, now - oldest),
            recent_per_second=recently_done / (now - since_minute * 60),
        )

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Give the letters that match, oldest first."""
        for letter in self._selected(selection):
            yield letter

    async def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again; see `Queue.retry_dead`."""
        retried = kept = 0
        for letter in self._selected(selection):
            if letter.change_id in self._change_ids:
                kept += 1
            else:
                self._append(letter.completion_id, letter.change_id, letter.mode, letter.metadata)
                del self._dead[letter.number]
                retried += 1
        self._work.set()
        return Revived(retried, kept)

    async def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters; see `Queue.purge_dead`."""
        letters = self._selected(selection)
        for letter in letters:
            del self._dead[letter.number]
        return len(letters)

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take permits of the shared rate; see `Queue.take_permits`."""
        granted, self._permit_due_at = grant(
            self._permit_due_at, self._clock(), count, per_minute=per_minute, ahead_seconds=ahead_seconds
        )
        return granted

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep or remove a note; see `Queue.write_note`."""
        self._notes.pop(name, None)
        if text is not None:
            self._notes[name] = (text, self._clock())

    async def read_notes(self) -> dict[str, Note]:
        """Give all notes; see `Queue.read_notes`."""
        now = self._clock()
        return {name: Note(text, max(0.0, now - written_at)) for name, (text, written_at) in self._notes.items()}

    async def record_sample(self, sample: Sample) -> None:
        """Keep a sample; see `Queue.record_sample`."""
        self._samples[self._minute()] = sample
        _forget(self._samples, self._minute())

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Give the last minutes; see `Queue.history`."""
        done = [(minute, *counts) for minute, counts in self._done_by_minute.items()]
        return every_minute(self._minute(), checked(minutes), done, self._samples.items())

    async def dead_reasons(self) -> dict[str, int]:
        """Count the letters; see `Queue.dead_reasons`."""
        return dict(Counter(letter.reason for letter in self._dead.values()))

    async def close(self) -> None:
        """Nothing is under way between two calls."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _append(self, completion_id: str, change_id: str | None, mode: str, metadata: str) -> None:
        now = self._clock()
        self._last_change += 1
        change = QueuedChange(self._last_change, completion_id, change_id, mode, metadata, now)
        self._targets.setdefault(completion_id, _Target(visible_at=now)).changes[change.number] = change
        if change_id is not None:
            self._change_ids.add(change_id)

    def _held(self, claim: Claim) -> _Target | None:
        """The claim's target, if its lease holds."""
        target = self._targets.get(claim.completion_id)
        return target if target is not None and target.lease == claim.lease else None

    def _bury(self, target: _Target, settlement: Settlement) -> None:
        for death in settlement.dead:
            change = target.changes[death.number]
            self._last_letter += 1
            self._dead[self._last_letter] = DeadLetter(
                self._last_letter,
                change.completion_id,
                change.change_id,
                change.mode,
                change.metadata,
                change.enqueued_at,
                death.reason,
                death.status,
                storable(death.error),
                storable(death.request_id),
                death.attempts,
                died_at=self._clock(),
            )

    def _remove(self, target: _Target, numbers: Iterable[int]) -> None:
        for number in numbers:
            change = target.changes.pop(number)
            self._change_ids.discard(change.change_id or "")

    def _count(self, settlement: Settlement) -> None:
        done = self._done_by_minute.setdefault(self._minute(), [0, 0, 0])
        for place, ended in enumerate((settlement.applied, settlement.unchanged, settlement.dead)):
            done[place] += len(ended)
        _forget(self._done_by_minute, self._minute())

    def _minute(self) -> int:
        return int(self._clock() // 60)

    def _end_lease(self, target: _Target, settlement: Settlement) -> None:
        if target.changes:
            target.visible_at = self._clock() + settlement.delay_seconds
            target.lease = None
            target.attempts = settlement.attempts
        else:
            del self._targets[settlement.claim.completion_id]

    def _selected(self, selection: DeadSelection) -> list[DeadLetter]:
        return [
            letter
            for letter in self._dead.values()
            if (selection.numbers is None or letter.number in selection.numbers)
            and selection.completion_id in (None, letter.completion_id)
            and selection.reason in (None, letter.reason)
        ]


def _forget(by_minute: dict[int, T], minute: int) -> None:
    """Let go of what is older than a day."""
    for earlier in [each for each in by_minute if each < minute - KEPT_MINUTES]:
        del by_minute[earlier]


def _changes_of(targets: Iterable[_Target]) -> int:
    return sum(len(target.changes) for target in targets)
