"""Ends a drain that gets nowhere: all that is left fails, or the service lets nothing through."""

import asyncio
from collections.abc import Callable

from worker.engine.leases import Leases
from worker.engine.options import Ending
from worker.engine.outcome import Deferral, Outcome
from worker.engine.tallies import Tallies
from worker.flow import OUTAGE, Cause, Flow
from worker.queue import PendingSelection, QueueUnavailable, Store

_LOOKS = 20  # within the time-out
_LONGEST_LOOK_SECONDS = 1.0
_SHORTEST_LOOK_SECONDS = 0.05
_THROTTLED_TIMEOUTS = 3  # a drain ends after so many time-outs with answers 429 only
_CLAIMED_WITHIN_SECONDS = 5.0  # a due change may be claimed so much later

MOST_NAMED = 20  # failing completions that the summary names

Stop = Callable[[Ending, Cause | None], None]


class DrainWatch:
    """Ends a drain that gets nowhere, with the reason for it.

    Args:
        timeout_seconds: how long a drain waits while nothing gets through.
        stop: ends the run, with the reason.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        queue: Store,
        flow: Flow,
        leases: Leases,
        tallies: Tallies,
        clock: Callable[[], float],
        *,
        timeout_seconds: float,
        stop: Stop,
    ) -> None:
        self._queue = queue
        self._flow = flow
        self._leases = leases
        self._tallies = tallies
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._progress_at = clock()
        self._throttled = 0  # answers 429 while there was progress
        self._absent: dict[str, float] = {}  # when completions that were not found are given up
        self._second_looks: dict[str, float] = {}  # when the second try after `not_persisted` is over
        self.failing: dict[str, str] = {}  # the errors of completions that failed

    def saw(self, outcome: Outcome) -> None:
        """Take in an outcome."""
        if outcome.applied or outcome.unchanged or outcome.superseded or outcome.dead:
            self._progress_at = self._clock()
        if outcome.deferred or self._absent or self._second_looks or self.failing:  # in a good run, none ever
            self._saw_failing(outcome)

    def _saw_failing(self, outcome: Outcome) -> None:
        """Keep what is known of a completion that fails, or drop what was."""
        completion_id = outcome.claim.completion_id
        self._absent.pop(completion_id, None)
        self._second_looks.pop(completion_id, None)
        if outcome.absent_seconds is not None:
            self._absent[completion_id] = self._clock() + outcome.absent_seconds
        elif outcome.deferral is Deferral.RETRY:
            self.failing[completion_id] = outcome.error or "no reason was given"
            if outcome.second_look:
                self._second_looks[completion_id] = self._clock() + outcome.delay_seconds + _CLAIMED_WITHIN_SECONDS
        elif not outcome.deferred:
            self.failing.pop(completion_id, None)

    def absent(self) -> tuple[int, float]:
        """How many completions were not found so far, and the seconds until the last one is given up."""
        if not self._absent:
            return 0, 0.0
        return len(self._absent), max(0.0, max(self._absent.values()) - self._clock())

    async def run(self) -> None:
        """Watch until there is a reason to stop."""
        pause = min(max(self._timeout_seconds / _LOOKS, _SHORTEST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS)
        while True:
            await asyncio.sleep(pause)
            found = await self._look()
            if found is not None:
                self._stop(*found)
                return

    async def _look(self) -> tuple[Ending, Cause | None] | None:  # noqa: PLR0911 -- one for each way to end
        if self._tallies.store_error is not None and self._tallies.store_away_seconds >= self._timeout_seconds:
            return Ending.STORE_AWAY, None
        state = self._flow.snapshot()
        alike = self._flow.alike()
        if alike is not None and alike[1] >= self._timeout_seconds:
            return Ending.HALTED, alike[0]
        if state.cause is not None:
            if (state.halted_for_seconds or 0.0) < self._timeout_seconds:
                return None
            if state.cause.reason == OUTAGE:
                return Ending.OUTAGE, state.cause
            # If others got through in this run, the service refuses only the completions that are left.
            return (Ending.STUCK if self._flow.gate.is_halted_by_few else Ending.HALTED), state.cause
        if state.closed_for_seconds > self._timeout_seconds:
            return Ending.CLOSED, None
        if self._is_only_throttled(state.throttled):
            return Ending.CLOSED, None
        if not await self._is_stuck():
            return None
        trait = self._flow.gate.trait()
        return (Ending.HALTED, trait) if trait else (Ending.STUCK, None)

    def _is_only_throttled(self, throttled: int) -> bool:
        """Whether the service has answered 429 for long, and nothing has got through."""
        quiet_seconds = self._clock() - self._progress_at
        if quiet_seconds < self._timeout_seconds:
            self._throttled = throttled
        return quiet_seconds >= _THROTTLED_TIMEOUTS * self._timeout_seconds and throttled > self._throttled

    async def _is_stuck(self) -> bool:
        """Whether all that is left has failed, and nothing has got through within the time-out."""
        quiet_seconds = self._clock() - self._progress_at
        if not self.failing or self._absent or len(self._leases) or quiet_seconds < self._timeout_seconds:
            return False
        if max(self._second_looks.values(), default=0.0) > self._clock():
            return False
        try:
            if (await self._queue.next_due_seconds() or 0.0) <= 0:
                return False
            return (await self._queue.status()).in_flight == 0 and await self._still_fail()
        except QueueUnavailable:
            return False

    async def _still_fail(self) -> bool:
        """Whether any completion that failed is still pending.

        It forgets completions that were withdrawn, until it has found as many pending ones as the summary names.
        """
        pending = 0
        for completion_id in list(self.failing):
            async for _ in self._queue.pending_changes(PendingSelection(completion_id=completion_id)):
                pending += 1
                break
            else:
                del self.failing[completion_id]
            if pending == MOST_NAMED:
                break
        return pending > 0
