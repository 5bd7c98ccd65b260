"""The reader: claims what is due, a little ahead of need, and never more than the worker may hold.

It claims urgent completions apart, even while other claims are held. A held completion may become urgent: it waits for
the claims ahead of it. These are two seconds of work at most, once a rate limit is known or configured.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from itertools import cycle, islice

import structlog

from worker.engine.leases import Leases
from worker.engine.patience import store_pauses
from worker.engine.tallies import Tallies
from worker.engine.work import Work
from worker.flow import Flow
from worker.queue import Claim, Place, Queue, QueueUnavailable

_SHORTEST_WAIT_SECONDS = 0.01
_SHORTEST_POLL_SECONDS = 0.05
_LONGEST_AWAY_SECONDS = 10.0  # how long a completion stays away that a probe claimed but did not use
_URGENT_SECONDS = 0.5  # between two looks for urgent completions while there is other work
_LOOKED_SECONDS = 0.05  # a look for urgent completions is not repeated sooner
_AHEAD_SECONDS = 2.0  # with a limited rate, claim what may start within so long
# A probe needs a completion that works. Bad ones may have been enqueued together, so the reader looks in all places.
_PLACES: tuple[Place, ...] = ("oldest", "urgent", "newest", "middle")


class Reader:
    """Fills the appliers' buffer until it is cancelled or, in a drain, until nothing is left.

    Args:
        submit: takes over each claimed work that is not urgent.
        submit_urgent: takes over each urgent one.
        waiting: how many works wait for their first request.
        slots: most requests in flight at once.
        give_back: takes over a work that was claimed for a probe and not used, with the seconds until it is due again.
        look_for_pause: tells flow control about a pause before something is claimed.
        clock: monotonic seconds.
        owner: names this worker in the store.
        batch_size: most completions claimed at once.
        lease_seconds: how long they are leased.
        confirmed_seconds: a claim carries the confirmed metadata of its completion if it is not older.
    """

    def __init__(
        self,
        queue: Queue,
        flow: Flow,
        leases: Leases,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        submit: Callable[[Work], None],
        submit_urgent: Callable[[Work], None],
        waiting: Callable[[], int],
        slots: int,
        give_back: Callable[[Work, float], None],
        look_for_pause: Callable[[], Awaitable[None]],
        tallies: Tallies,
        clock: Callable[[], float],
        owner: str,
        batch_size: int,
        lease_seconds: float,
        confirmed_seconds: float,
    ) -> None:
        self._queue = queue
        self._flow = flow
        self._leases = leases
        self._tallies = tallies
        self._logger = logger
        self._submit = submit
        self._submit_urgent = submit_urgent
        self._waiting = waiting
        self._slots = slots
        self._urgent_at = -math.inf  # when to look for urgent completions again, at the latest
        self._more_are_urgent = False  # by the last look
        self._give_back = give_back
        self._look_for_pause = look_for_pause
        self._clock = clock
        self._owner = owner
        self._batch_size = batch_size
        self._lease_seconds = lease_seconds
        self._confirmed_seconds = confirmed_seconds
        self._places: cycle[Place] = cycle(_PLACES)
        self._due_at: float | None = None  # by the last look

    def due_in_seconds(self) -> float | None:
        """How long until anything is due, while this worker holds nothing; None if it holds, or nothing is pending."""
        return None if self._due_at is None or len(self._leases) else max(0.0, self._due_at - self._clock())

    async def run(self, *, drain: bool) -> None:
        """Claim for ever; in a drain, return once the queue is empty."""
        poll_seconds = _SHORTEST_POLL_SECONDS
        pauses = store_pauses()
        may_be_due = True  # else ask for the next due time first: a claim in vain costs more
        while True:
            at_most = await self._flow.ready()
            has_room = self._has_room()
            try:
                if may_be_due or not has_room:
                    await self._look_for_pause()
                    if self._flow.is_paused:
                        continue
                    await self._hurry(at_most)
                if not has_room:
                    await self._leases.fewer(_URGENT_SECONDS)
                    continue
                claimed = may_be_due and (await self._claim() if at_most is None else await self._claim_one())
                due_seconds = None if claimed else await self._next_due_seconds()
                self._due_at = None if due_seconds is None else self._clock() + due_seconds
            except QueueUnavailable as error:
                self._logger.warning("store.unavailable", operation="claim", error=str(error))
                await asyncio.sleep(next(pauses))
                continue
            pauses = store_pauses()
            if claimed:
                poll_seconds = _SHORTEST_POLL_SECONDS
                continue
            if not may_be_due and due_seconds is not None and due_seconds <= 0:
                may_be_due = True
                continue
            if drain and due_seconds is None:
                return
            self._flow.nothing_else([work.claim.completion_id for work in self._leases.works])
            wait_seconds = _wait_seconds(poll_seconds, due_seconds)
            was_heard = await self._queue.wait_for_work(wait_seconds)
            may_be_due = was_heard or (due_seconds is not None and due_seconds <= wait_seconds)
            poll_seconds = min(poll_seconds * 2, self._queue.poll_seconds)

    async def _next_due_seconds(self) -> float | None:
        with self._tallies.store_call("next_due"):
            due_seconds = await self._queue.next_due_seconds()
        if due_seconds is None or due_seconds > 0:
            self._tallies.fails_no_more("claim")  # one that failed has nothing to write any more
        return due_seconds

    def _has_room(self) -> bool:
        """Whether to claim more. With a limited rate, only when half of the claims ahead are used up."""
        ahead = self._flow.starts_within(_AHEAD_SECONDS)
        return self._leases.has_room and (ahead is None or 2 * self._waiting() <= ahead)

    def _limit(self) -> int:
        """How many completions to claim at once."""
        ahead = self._flow.starts_within(_AHEAD_SECONDS)
        return self._batch_size if ahead is None else min(self._batch_size, max(1, ahead - self._waiting()))

    async def _hurry(self, at_most: int | None) -> None:
        """Claim urgent completions beside the claims held: one more than may be in flight, or a second's work at most.

        Another worker may have a free slot sooner, so it claims no more. It claims no fewer either, since finished
        claims are held until they are recorded.

        Args:
            at_most: 1 if flow control wants one completion at a time; None for any number.
        """
        if not len(self._leases) or not self._flow.gate.is_open or not self._leases.has_room_for_urgent:
            return  # with no claims held, a claim in vain looks for urgent ones, too
        most = 1 if at_most else self._slots + 1
        soon = self._flow.starts_within(1.0)
        if soon is not None:
            most = min(most, soon)
        free = most - self._leases.urgent
        is_due = self._clock() >= self._urgent_at or (self._more_are_urgent and 2 * free >= most)
        if free > 0 and is_due:
            await self._claim_urgent(free)

    async def _claim(self) -> bool:
        """Claim what is due and hand it on; return whether there was anything."""
        limit = self._limit()
        works = await self._lease(limit, "oldest")
        for work in works:
            self._submit(work)
        if works or self._clock() < self._urgent_at - _URGENT_SECONDS + _LOOKED_SECONDS:
            return bool(works)
        return await self._claim_urgent(limit)  # only urgent ones may be due

    async def _claim_urgent(self, limit: int) -> bool:
        self._urgent_at = self._clock() + _URGENT_SECONDS
        works = await self._lease(limit, "urgent")
        self._more_are_urgent = len(works) == limit
        for work in works:
            self._submit_urgent(work)
        return bool(works)

    async def _claim_one(self) -> bool:
        """Claim one completion: while the worker is halted, for a probe, one that has not failed, if there is any.

        Urgent completions are one place among the others, since either kind may be the one that fails.
        """
        failed: list[Work] = []
        away_seconds = min(self._flow.next_probe_in_seconds(), _LONGEST_AWAY_SECONDS)
        try:
            others_wait = True
            for place in islice(self._places, len(_PLACES)):
                if not others_wait and place != "urgent":
                    continue
                works = await self._lease(1, place)
                if not works:
                    others_wait = others_wait and place == "urgent"
                    continue
                (work,) = works
                if self._flow.gate.is_open or not self._flow.gate.has_failed(work.claim.completion_id):
                    work.is_probe = self._flow.take_probe(work.claim.completion_id)
                    self._hand_on(work)
                    return True
                failed.append(work)
            if failed and self._flow.take_probe(failed[0].claim.completion_id):
                work = failed.pop(0)
                work.is_probe = True
                self._hand_on(work)
                return True
            return False
        finally:
            for work in failed:
                self._give_back(work, away_seconds)

    def _hand_on(self, work: Work) -> None:
        (self._submit_urgent if work.is_urgent else self._submit)(work)

    async def _lease(self, limit: int, place: Place) -> list[Work]:
        claimed_at = self._clock()
        with self._tallies.store_call("claim"):
            claims: list[Claim] = await self._queue.claim(
                limit,
                lease_seconds=self._lease_seconds,
                owner=self._owner,
                place=place,
                confirmed_seconds=self._confirmed_seconds,
            )
        if claims:
            self._tallies.fails_no_more("claim")
        return self._leases.take(claims, claimed_at, urgent=place == "urgent")


def _wait_seconds(poll_seconds: float, due_seconds: float | None) -> float:
    """How long to wait for work. What is due but could not be claimed is locked by another worker at the moment."""
    if due_seconds is None or due_seconds <= 0:
        return poll_seconds
    return max(min(poll_seconds, due_seconds), _SHORTEST_WAIT_SECONDS)
