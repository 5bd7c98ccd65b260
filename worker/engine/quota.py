"""A worker's part of the quota that all workers share. The store grants it in blocks while there is work."""

import asyncio
import math
from collections import deque
from collections.abc import Callable

from worker.flow import Flow
from worker.queue import Coordination, Grant, QueueUnavailable
from worker.queue.quota import interval_seconds

# The next block is asked for when half of the last one is used: two to four calls a second at any rate.
_BLOCK_SECONDS = 0.5
_AHEAD_SECONDS = 1.0  # how far ahead a block may reach: so much quota is lost with a worker that is killed
_PATIENCE_SECONDS = 1.0  # how long to wait for the store before the last share is used
_SHARE_SECONDS = 10.0  # the time over which a worker's share is measured
_SHORTEST_WAIT_SECONDS = 0.02


class QuotaKeeper:
    """Supplies flow control with the permits that the store grants.

    Args:
        per_minute: the rate that all workers keep together.
        clock: monotonic seconds.
        workers: how many workers there are, as far as is known.
    """

    def __init__(
        self, queue: Coordination, per_minute: float, clock: Callable[[], float], workers: Callable[[], int]
    ) -> None:
        self._queue = queue
        self._per_minute = per_minute
        self._interval_seconds = interval_seconds(per_minute)
        self._block = math.ceil(_BLOCK_SECONDS / self._interval_seconds)
        self._clock = clock
        self._short = asyncio.Event()
        self._share = QuotaShare(self._interval_seconds, workers)

    def run_short(self) -> None:
        """Ask for more permits: flow control needs them now or soon."""
        self._short.set()

    async def run(self, flow: Flow) -> None:
        """Fetch permits as they are needed, for ever. While the store is away, the last share holds."""
        async with asyncio.TaskGroup() as group:
            asking: asyncio.Task[Grant | None] | None = None
            patience_seconds = _PATIENCE_SECONDS
            while True:
                await self._short.wait()
                asking = asking or group.create_task(self._ask())
                # After a failed call, work goes on at once with the share while the store is asked again.
                await asyncio.wait({asking}, timeout=patience_seconds)
                granted = None
                if asking.done():
                    granted, asking = asking.result(), None
                patience_seconds = _PATIENCE_SECONDS if granted else 0.0
                if granted:
                    self._share.granted(self._clock(), granted)
                await self._hand_on(flow, granted)

    async def _ask(self) -> Grant | None:
        try:
            return await self._queue.take_quota(self._block, per_minute=self._per_minute, ahead_seconds=_AHEAD_SECONDS)
        except QueueUnavailable:
            return None

    async def _hand_on(self, flow: Flow, granted: Grant | None) -> None:
        interval = self._interval_seconds if granted else self._share.interval_seconds
        granted = granted or self._share.take(self._clock())
        if granted.requests:
            self._short.clear()  # before the grant: if that is not enough, flow control asks again at once
            flow.grant(granted.requests, wait_seconds=granted.wait_seconds, interval_seconds=interval)
        else:
            await asyncio.sleep(max(granted.wait_seconds, _SHORTEST_WAIT_SECONDS))


class QuotaShare:
    """This worker's share of the quota, measured from the latest grants, for the time in which the store is away.

    The store granted each share, so that all workers together stay within the quota.

    Args:
        common_seconds: the time between two requests of all workers together.
        workers: how many workers there are, for the time before two grants make a measurement.
    """

    def __init__(self, common_seconds: float, workers: Callable[[], int]) -> None:
        self._common_seconds = common_seconds
        self._workers = workers
        self._grants: deque[tuple[float, int]] = deque()  # (start of the first request, number of requests)
        self._next_at: float | None = None

    def __repr__(self) -> str:
        return f"<QuotaShare [{1.0 / self.interval_seconds:.2f} requests/s]>"

    @property
    def interval_seconds(self) -> float:
        """The time between two requests; infinity before the first grant."""
        if not self._grants:
            return math.inf
        if len(self._grants) == 1:
            return self._common_seconds * self._workers()
        before_last = sum(permits for _, permits in self._grants) - self._grants[-1][1]
        return max(self._common_seconds, (self._grants[-1][0] - self._grants[0][0]) / before_last)

    def granted(self, now: float, grant: Grant) -> None:
        """Note what the store granted."""
        if not grant.requests:
            return
        self._next_at = None
        self._grants.append((now + grant.wait_seconds, grant.requests))
        while len(self._grants) > 2 and self._grants[1][0] < now - _SHARE_SECONDS:  # noqa: PLR2004 -- two make a span
            self._grants.popleft()

    def take(self, now: float) -> Grant:
        """The next grant, at the rate of the share, without the store."""
        interval = self.interval_seconds
        if math.isinf(interval):
            return Grant(0, _PATIENCE_SECONDS)
        if self._next_at is None:
            usable_at, permits = self._grants[-1]
            self._next_at = usable_at + permits * interval
        starts_at = max(self._next_at, now)
        if starts_at > now + _AHEAD_SECONDS:
            return Grant(0, starts_at - now - _AHEAD_SECONDS)
        permits = max(1, int(_BLOCK_SECONDS / interval))
        self._next_at = starts_at + permits * interval
        return Grant(permits, starts_at - now)
