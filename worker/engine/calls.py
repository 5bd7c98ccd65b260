"""One request through flow control, with its in-process retries."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from worker.api import Answer, Kind, RetryPolicy, Verdict, retry
from worker.engine.outcome import Left
from worker.engine.tallies import Operation, Tallies
from worker.engine.totals import Totals
from worker.engine.work import Work
from worker.flow import Closed, Flow, Halted, Permit

# Waits of up to so many seconds happen in the worker, with the lease held; longer ones are the queue's.
PATIENCE_SECONDS = 5.0

Send = Callable[[float], Awaitable[Answer]]


class GiveBack(Exception):
    """No request may start now.

    Args:
        delay_seconds: until one may.
    """

    def __init__(self, left: Left, delay_seconds: float = 0.0) -> None:
        super().__init__(left)
        self.left = left
        self.delay_seconds = delay_seconds


class Calls:
    """Makes requests when flow control admits them, and tells it what came of them.

    Args:
        request_timeout_seconds: longest wait for one answer; a lease that ends sooner interrupts the work.
        tallies: count every request.
        clock: the event loop's, by which leases end.
        parked: a context in which the current task makes room for another claim, since it only waits.
    """

    def __init__(
        self,
        flow: Flow,
        policy: RetryPolicy,
        totals: Totals,
        tallies: Tallies,
        *,
        clock: Callable[[], float],
        request_timeout_seconds: float,
        parked: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._flow = flow
        self._policy = policy
        self._totals = totals
        self._tallies = tallies
        self._clock = clock
        self._request_timeout_seconds = request_timeout_seconds
        self._parked = parked
        self.stopping = False

    async def call(self, work: Work, operation: Operation, send: Send, *, attempts_left: int) -> Answer:
        """Send until the service has given its word, or a short wait is not enough.

        Args:
            send: makes the request, within the seconds it is handed.
            attempts_left: how many more failures the claim may have.

        Raises:
            GiveBack: flow control lets nothing start for now, or the worker stops.
        """
        answer = await self._once(work, operation, send)
        if answer.verdict.kind is not Kind.RETRY or attempts_left <= 1 or self.stopping:
            return answer
        return await retry(
            answer,
            lambda: self._again(work, operation, send),
            policy=self._policy,
            max_tries=attempts_left - 1,
            may_retry=self._flow.may_retry,
            deadline=lambda: work.deadline,
            sleep=self._sleep,
        )

    async def _again(self, work: Work, operation: Operation, send: Send) -> Answer:
        self._totals.retries += 1
        return await self._once(work, operation, send)

    async def _sleep(self, seconds: float) -> None:
        with self._parked():
            await asyncio.sleep(seconds)

    async def _once(self, work: Work, operation: Operation, send: Send) -> Answer:
        """One request that the service was willing to look at: throttled ones do not count."""
        while True:
            permit = None if self.stopping else self._flow.start(work.claim.completion_id)
            if permit is None:
                permit = await self._admit(work)
            if self._clock() >= work.deadline:  # this process was frozen, or its store is away
                permit.dropped()
                raise GiveBack(Left.RELEASED)
            work.in_flight = True
            try:
                answer = await send(self._request_timeout_seconds)
            except BaseException:
                permit.dropped()
                raise
            finally:
                work.in_flight = False
            self._tallies.request(operation, answer)
            _report(permit, answer.verdict)
            match answer.verdict.kind:
                case Kind.HALTED:
                    raise GiveBack(Left.RELEASED)
                case Kind.RETRY:
                    work.failures += 1
                    return answer
                case Kind.THROTTLED:
                    continue
                case _:
                    return answer

    async def _admit(self, work: Work) -> Permit:
        if self.stopping:
            raise GiveBack(Left.RELEASED)
        try:
            return await self._flow.admit(work.claim.completion_id, patience_seconds=PATIENCE_SECONDS)
        except Halted:
            raise GiveBack(Left.RELEASED) from None
        except Closed as closed:
            raise GiveBack(Left.SNOOZED, closed.delay_seconds) from None


def _report(permit: Permit, verdict: Verdict) -> None:
    """Tell flow control what came of a request, in its own terms."""
    limit = verdict.rate_limit
    match verdict.kind:
        case Kind.THROTTLED:
            permit.throttled(delay_seconds=verdict.delay_seconds, slow_down=verdict.slow_down)
        case Kind.HALTED:
            permit.halted(verdict.halt or "halted")
        case Kind.RETRY if verdict.status is None or verdict.status not in {408, 409}:
            permit.failed(delay_seconds=verdict.delay_seconds)
        case _ if limit is not None:
            permit.accepted(
                limit=limit.limit_requests, remaining=limit.remaining_requests, reset_seconds=limit.reset_seconds
            )
        case _:
            permit.accepted()
