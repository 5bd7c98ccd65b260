"""The claims in hand and the heartbeat that keeps their leases."""

import asyncio
from collections.abc import Iterable

import structlog

from worker.engine.tallies import Tallies
from worker.engine.work import Interruption, Work
from worker.queue import Queue, QueueUnavailable
from worker.queue.base import Claim

# A lease survives two heartbeats that the store did not take.
_HEARTBEATS_PER_LEASE = 3


class Leases:
    """Every claim that this worker holds, buffered, worked on or waiting to be recorded.

    Args:
        lease_seconds: how long a lease runs from each heartbeat.
        logger: gets one event per lost lease.
    """

    def __init__(
        self, queue: Queue, lease_seconds: float, tallies: Tallies, logger: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._queue = queue
        self._tallies = tallies
        self._lease_seconds = lease_seconds
        self._logger = logger
        self._held: dict[tuple[str, int], Work] = {}
        self._fewer = asyncio.Event()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<Leases [{len(self._held)} held, {self.lost} lost]>"

    @property
    def works(self) -> list[Work]:
        """All that is in hand now."""
        return list(self._held.values())

    def take(self, claims: Iterable[Claim], claimed_at: float) -> list[Work]:
        """Hold these from here on.

        Args:
            claimed_at: loop time just before the claim was asked for, so that the lease is never overestimated.
        """
        works = [Work(claim, claimed_at, claimed_at + self._lease_seconds) for claim in claims]
        for work in works:
            self._held[work.claim.completion_id, work.claim.lease] = work
        return works

    def drop(self, claims: Iterable[Claim]) -> None:
        """They are settled, or lost."""
        for claim in claims:
            self._held.pop((claim.completion_id, claim.lease), None)
        self._fewer.set()

    async def fewer_than(self, limit: int) -> None:
        """Wait until fewer claims than `limit` are in hand."""
        while len(self._held) >= limit:
            self._fewer.clear()
            await self._fewer.wait()

    async def expire(self) -> None:
        """Interrupt, for ever, whatever outlasts its lease: a store that is away extends none."""
        loop = asyncio.get_running_loop()
        while True:
            running = {key: work for key, work in self._held.items() if work.interruption is None}
            first = min((work.deadline for work in running.values()), default=loop.time() + self._lease_seconds)
            await asyncio.sleep(first - loop.time())
            now = loop.time()
            self._give_up({key for key, work in running.items() if work.deadline <= now})

    async def keep(self) -> None:
        """Extend every lease in time, for ever; a lease that is lost interrupts its work."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._lease_seconds / _HEARTBEATS_PER_LEASE)
            asked_at = loop.time()
            works = self.works
            try:
                with self._tallies.store_call("extend"):
                    lost = await self._queue.extend([work.claim for work in works], lease_seconds=self._lease_seconds)
            except QueueUnavailable as error:
                self._logger.warning("store.unavailable", operation="extend", error=str(error))
                continue
            gone = {(claim.completion_id, claim.lease) for claim in lost}
            for work in works:
                if (work.claim.completion_id, work.claim.lease) not in gone:
                    work.deadline = asked_at + self._lease_seconds
            self._give_up(gone)

    def _give_up(self, gone: set[tuple[str, int]]) -> None:
        for key in gone:
            work = self._held.get(key)
            if work is not None and work.interruption is None:  # it may have been settled meanwhile
                self.lost += 1
                self._logger.warning("lease.lost", completion_id=work.claim.completion_id)
                work.interrupt(Interruption.LEASE_LOST)
