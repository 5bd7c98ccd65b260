"""The claims that this worker holds, and the heartbeat that extends their leases."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from worker.engine.tallies import Tallies
from worker.engine.work import Interruption, Work
from worker.queue import Claim, Queue, QueueUnavailable

# A lease survives two failed heartbeats.
_HEARTBEATS_PER_LEASE = 4


class Leases:
    """Every claim that this worker holds: buffered, worked on, or waiting to be recorded.

    Args:
        lease_seconds: how long a lease runs from each heartbeat.
        most: claims held above which there is no room for more. Finished ones count only above `most_finished`.
        most_bytes: there is room for more if these bytes of metadata take what is held, and what was claimed last.
        tallies: count the lost leases.
        clock: monotonic seconds.
        logger: gets one event per lost lease.

    `held` has the works by their claims' keys; `finished` is how many of them are held only until they are recorded.
    """

    def __init__(
        self,
        queue: Queue,
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        clock: Callable[[], float],
        lease_seconds: float,
        most: int,
        most_finished: int = 0,
        most_bytes: int,
    ) -> None:
        self._queue = queue
        self._tallies = tallies
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._most = most
        self._most_finished = most_finished
        self.finished = 0
        self._most_bytes = most_bytes
        self._bytes = self._urgent_bytes = 0
        self._last_bytes = self._last_urgent_bytes = 0  # what the last claims brought
        self._urgent = 0
        self._latest: dict[str, Work] = {}
        self._logger = logger
        self.held: dict[tuple[str, int], Work] = {}
        self._fewer = asyncio.Event()

    def __len__(self) -> int:
        return len(self.held)

    def __repr__(self) -> str:
        return f"<Leases [{len(self.held)} held]>"

    @property
    def works(self) -> list[Work]:
        """All works that are held now."""
        return list(self.held.values())

    @property
    def urgent(self) -> int:
        """How many of the claims are urgent."""
        return self._urgent

    def take(self, claims: Iterable[Claim], claimed_at: float, *, urgent: bool = False) -> list[Work]:
        """Hold these claims.

        Args:
            claimed_at: when the claim was asked for, not answered, so that the lease is never overestimated.
            urgent: whether they were claimed as urgent.
        """
        deadline = claimed_at + self._lease_seconds
        works = [Work(claim, claimed_at, deadline, is_urgent=urgent) for claim in claims]
        if works:  # no claims tell nothing about the next ones
            size = sum([work.size_bytes for work in works])
            self._bytes += size
            if urgent:
                self._urgent += len(works)
                self._urgent_bytes += size
                self._last_urgent_bytes = size
            else:
                self._last_bytes = size
        for work in works:
            claim = work.claim
            if (before := self._latest.get(claim.completion_id)) is not None:
                # There is a new claim, so the lease of the earlier one has run out: this process was frozen.
                self._give_up({before.claim.key})
            self._latest[claim.completion_id] = work
            self.held[claim.key] = work
        return works

    def drop(self, claims: Iterable[Claim]) -> None:
        """Let go of claims that are settled or lost."""
        for claim in claims:
            work = self.held.pop(claim.key, None)
            if work is not None:
                self._bytes -= work.size_bytes
                if work.is_urgent:
                    self._urgent -= 1
                    self._urgent_bytes -= work.size_bytes
                if self._latest.get(claim.completion_id) is work:
                    del self._latest[claim.completion_id]
        self._fewer.set()

    @property
    def has_room(self) -> bool:
        """Whether more claims may be taken. The next ones may be as large as the last: some take as much as all may."""
        has_bytes = not self._bytes or self._bytes + self._last_bytes <= self._most_bytes
        return len(self.held) - min(self.finished, self._most_finished) <= self._most and has_bytes

    @property
    def has_room_for_urgent(self) -> bool:
        """Whether more urgent claims may be taken: they may hold half as many bytes, on top of the other claims."""
        return not self._urgent_bytes or self._urgent_bytes + self._last_urgent_bytes <= self._most_bytes // 2

    async def fewer(self, timeout_seconds: float) -> None:
        """Wait until a claim is dropped, or the time is over."""
        self._fewer.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._fewer.wait()

    async def fewer_than(self, limit: int) -> None:
        """Wait until fewer than `limit` claims are held."""
        while len(self.held) >= limit:
            self._fewer.clear()
            await self._fewer.wait()

    async def expire(self) -> None:
        """Interrupt each work whose lease ends, for ever: a store that is away extends none."""
        while True:
            deadlines = [work.deadline for work in self.held.values() if work.interruption is None]
            await asyncio.sleep(min(deadlines, default=self._clock() + self._lease_seconds) - self._clock())
            now = self._clock()
            self._give_up({key for key, work in self.held.items() if work.deadline <= now})

    async def heartbeat(self) -> None:
        """Extend every lease in time, for ever; interrupt the work of a lost lease."""
        while True:
            await asyncio.sleep(self._lease_seconds / _HEARTBEATS_PER_LEASE)
            await self._extend()

    async def _extend(self) -> None:
        asked_at = self._clock()
        works = self.works
        if not works:
            self._tallies.fails_no_more("extend")  # none is made without claims
            return
        try:
            with self._tallies.store_call("extend"):
                lost = await self._queue.extend([work.claim for work in works], lease_seconds=self._lease_seconds)
        except QueueUnavailable as error:
            self._logger.warning("store.unavailable", operation="extend", error=str(error))
            return
        gone = {claim.key for claim in lost}
        for work in works:
            if work.claim.key not in gone:
                work.deadline = asked_at + self._lease_seconds
        self._give_up(gone)

    def _give_up(self, gone: set[tuple[str, int]]) -> None:
        for key in gone:
            work = self.held.get(key)
            if work is not None and work.interruption is None:  # else it was settled meanwhile
                self._tallies.leases_lost += 1
                self._logger.warning("lease.lost", completion_id=work.claim.completion_id)
                work.interrupt(Interruption.LEASE_LOST)
