"""A queue that can be told to be away, around a real one."""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from worker.changes import MetadataChange
from worker.queue import Queue, QueueUnavailable
from worker.queue.base import Claim, DeadLetter, DeadSelection, Note, QueueStatus, Revived, Settlement, Stored
from worker.queue.history import HistoryMinute, Sample
from worker.queue.permits import Grant


class WrappedQueue:
    """Passes every call on, except those that are named in `unavailable`."""

    def __init__(self, queue: Queue) -> None:
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

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        self._check("put")
        return await self.queue.put(changes)

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        self._check("claim")
        return await self.queue.claim(limit, lease_seconds=lease_seconds, owner=owner)

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        self._check("extend")
        return await self.queue.extend(claims, lease_seconds=lease_seconds)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        self._check("settle")
        return await self.queue.settle(settlements)

    async def next_due_seconds(self) -> float | None:
        self._check("next_due_seconds")
        return await self.queue.next_due_seconds()

    async def wait_for_work(self, timeout_seconds: float) -> None:
        await self.queue.wait_for_work(timeout_seconds)

    async def status(self) -> QueueStatus:
        return await self.queue.status()

    def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        return self.queue.dead_letters(selection)

    async def retry_dead(self, selection: DeadSelection) -> Revived:
        return await self.queue.retry_dead(selection)

    async def purge_dead(self, selection: DeadSelection) -> int:
        return await self.queue.purge_dead(selection)

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        self._check("take_permits")
        return await self.queue.take_permits(count, per_minute=per_minute, ahead_seconds=ahead_seconds)

    async def write_note(self, name: str, text: str | None) -> None:
        await self.queue.write_note(name, text)

    async def read_notes(self) -> dict[str, Note]:
        return await self.queue.read_notes()

    async def record_sample(self, sample: Sample) -> None:
        await self.queue.record_sample(sample)

    async def history(self, minutes: int) -> list[HistoryMinute]:
        return await self.queue.history(minutes)

    async def dead_reasons(self) -> dict[str, int]:
        return await self.queue.dead_reasons()

    async def close(self) -> None:
        """The wrapped queue belongs to whoever opened it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
