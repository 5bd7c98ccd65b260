"""A wrapper around a queue that can pretend to be away."""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

from worker.changes import MetadataChange
from worker.changes.mapping import Changes
from worker.queue import (
    EVERYTHING,
    Batch,
    Claim,
    DeadLetter,
    DeadSelection,
    Grant,
    HistoryMinute,
    LeaseHolder,
    LetterCount,
    Note,
    PendingSelection,
    QueuedChange,
    QueueStatus,
    QueueUnavailable,
    Revived,
    Sample,
    Settlement,
    Store,
    Stored,
    Withdrawn,
)


class WrappedQueue:
    """Passes every call on, except those named in `unavailable`."""

    def __init__(self, queue: Store) -> None:
        self.queue = queue
        self.unavailable: set[str] = set()
        self.refused = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.queue.warnings

    def _check(self, operation: str) -> None:
        if operation in self.unavailable:
            self.refused += 1
            raise QueueUnavailable("the store is away")

    async def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        self._check("pending_changes")
        async for change in self.queue.pending_changes(selection):
            yield change

    async def put(self, changes: Changes, *, batch: str | None = None, urgent: bool = False) -> Stored:
        self._check("put")
        return await self.queue.put(changes, batch=batch, urgent=urgent)

    async def batches(self, name: str | None = None) -> list[Batch]:
        self._check("batches")
        return await self.queue.batches(name)

    async def withdraw(self, selection: PendingSelection, **terms: Any) -> Withdrawn:
        self._check("withdraw")
        return await self.queue.withdraw(selection, **terms)

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        self._check("forget")
        return await self.queue.forget(older_than_seconds, most=most)

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        self._check("forget_confirmed")
        await self.queue.forget_confirmed(older_than_seconds, most=most)

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        self._check("conflicts")
        return await self.queue.conflicts(changes)

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        self._check("claim")
        return await self.queue.claim(limit, **terms)

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        self._check("extend")
        return await self.queue.extend(claims, lease_seconds=lease_seconds)

    async def settle(self, settlements: Sequence[Settlement], **terms: Any) -> list[Settlement]:
        self._check("settle")
        return await self.queue.settle(settlements, **terms)

    async def next_due_seconds(self) -> float | None:
        self._check("next_due_seconds")
        return await self.queue.next_due_seconds()

    @property
    def poll_seconds(self) -> float:
        return self.queue.poll_seconds

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        return await self.queue.wait_for_work(timeout_seconds)

    async def status(self) -> QueueStatus:
        return await self.queue.status()

    async def leases(self) -> list[LeaseHolder]:
        return await self.queue.leases()

    def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        return self.queue.dead_letters(selection)

    async def retry_dead(self, selection: DeadSelection, **terms: Any) -> Revived:
        return await self.queue.retry_dead(selection, **terms)

    async def purge_dead(self, selection: DeadSelection, **terms: Any) -> int:
        return await self.queue.purge_dead(selection, **terms)

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        self._check("take_quota")
        return await self.queue.take_quota(requests, per_minute=per_minute, ahead_seconds=ahead_seconds)

    async def write_note(self, name: str, text: str | None) -> None:
        self._check("write_note")
        await self.queue.write_note(name, text)

    async def read_note(self, name: str) -> Note | None:
        self._check("read_note")
        return await self.queue.read_note(name)

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        self._check("expire_dead")
        return await self.queue.expire_dead(older_than_seconds, most=most)

    async def read_notes(self) -> dict[str, Note]:
        self._check("read_notes")
        return await self.queue.read_notes()

    async def unix_time(self) -> float:
        return await self.queue.unix_time()

    async def record_sample(self, sample: Sample) -> None:
        await self.queue.record_sample(sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        return await self.queue.history(minutes)

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        return await self.queue.dead_reasons(until)

    async def close(self) -> None:
        """The wrapped queue stays open: its owner closes it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
