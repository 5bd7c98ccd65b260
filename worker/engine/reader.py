"""The reader: claims what is due, ahead of need but never more than can be held."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.engine.leases import Leases
from worker.engine.tallies import Tallies
from worker.engine.work import Work
from worker.flow import Flow
from worker.queue import Queue, QueueUnavailable
from worker.queue.base import Claim

_SHORTEST_WAIT_SECONDS = 0.01
_SHORTEST_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class Reader:
    """Fills the appliers' buffer until it is cancelled, or, when draining, until nothing is left.

    Args:
        submit: takes over each claimed work.
        before_probe: awaited before the one claim that tries whether a halted service works again.
        owner: names this worker in the store.
        batch_size: most completions claimed at once.
        ahead: completions to hold beyond one batch, so that the appliers never wait for the store.
    """

    def __init__(
        self,
        queue: Queue,
        flow: Flow,
        leases: Leases,
        logger: structlog.typing.FilteringBoundLogger,
        submit: Callable[[Work], None],
        *,
        tallies: Tallies,
        before_probe: Callable[[], Awaitable[None]] | None,
        owner: str,
        batch_size: int,
        ahead: int,
        lease_seconds: float,
    ) -> None:
        self._queue = queue
        self._flow = flow
        self._leases = leases
        self._tallies = tallies
        self._logger = logger
        self._submit = submit
        self._before_probe = before_probe
        self._owner = owner
        self._batch_size = batch_size
        self._ahead = ahead
        self._lease_seconds = lease_seconds

    async def run(self, *, drain: bool) -> None:
        """Claim for ever; when draining, return once the queue holds nothing, due or not."""
        loop = asyncio.get_running_loop()
        poll_seconds = _SHORTEST_POLL_SECONDS
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            await self._leases.fewer_than(self._ahead + 1)
            at_most = await self._flow.ready()
            if at_most is not None and self._before_probe is not None:
                await self._before_probe()
            claimed_at = loop.time()
            try:
                claims = await self._claim(at_most)
                due_seconds = None if claims else await self._queue.next_due_seconds()
            except QueueUnavailable as error:
                self._logger.warning("store.unavailable", operation="claim", error=str(error))
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            for work in self._leases.take(claims, claimed_at):
                self._submit(work)
            if claims:
                poll_seconds = _SHORTEST_POLL_SECONDS
                continue
            if drain and due_seconds is None:
                return
            await self._queue.wait_for_work(max(min(poll_seconds, due_seconds or poll_seconds), _SHORTEST_WAIT_SECONDS))
            poll_seconds = min(poll_seconds * 2, _LONGEST_POLL_SECONDS)

    async def _claim(self, at_most: int | None) -> list[Claim]:
        limit = self._batch_size if at_most is None else min(at_most, self._batch_size)
        with self._tallies.store_call("claim"):
            return await self._queue.claim(limit, lease_seconds=self._lease_seconds, owner=self._owner)
