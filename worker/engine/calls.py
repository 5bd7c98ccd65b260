"""Sends one request through flow control, and repeats it while short waits are enough."""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import assert_never

import msgspec

from worker.api import OK, Answer, Halt, Kind, RetryPolicy, Verdict, retry
from worker.engine.blame import Blame
from worker.engine.keys import KeyReader
from worker.engine.ledger import Ledger
from worker.engine.outcome import Deferral
from worker.engine.patience import SHORT_WAIT_SECONDS
from worker.engine.tallies import Tallies
from worker.engine.work import Work
from worker.flow import (
    DROPPED,
    FOREIGN,
    OUTAGE,
    REFUSED,
    SUCCEEDED,
    Closed,
    End,
    Ended,
    Flow,
    Halted,
    Limits,
    Operation,
    Paused,
    Permit,
)

# Makes one request within a time-out in seconds.
Send = Callable[[float], Awaitable[Answer]]

# Statuses 4xx that a service in trouble gives, too.
_TROUBLE = frozenset({408, 409, 421, 423, 424, 425, 499})

_FAILURES = frozenset({Kind.RETRY, Kind.HALTED})
_LONGEST_PAUSE_SECONDS = 86_400.0  # a service that asks for more means that a quota is used up
THROTTLED_ALONE = 3  # answers 429 in a row, while other completions pass
_ALONE_SECONDS = (2.0, 900.0)  # how long the queue keeps such a completion: first and longest delay
_LONGEST_SNOOZE_SECONDS = 60.0  # one answer may ask for far more, and may be wrong
_LETS_OTHERS_GO_SECONDS = 2.0  # so that completions that were not throttled are claimed first


class GiveBack(Exception):
    """This try of a claim is over: no request may start now, or the last answer decided it.

    Args:
        delay_seconds: until the next try.
    """

    def __init__(self, deferral: Deferral, delay_seconds: float = 0.0) -> None:
        super().__init__(deferral)
        self.deferral = deferral
        self.delay_seconds = delay_seconds


class Calls:
    """Makes requests when flow control admits them, and reports their ends to it.

    Args:
        policy: the backoff between tries.
        random: the source of jitter.
        tallies: count every request.
        clock: monotonic seconds, by which leases end.
        request_timeout_seconds: longest wait for one answer. A lease that ends sooner interrupts the work.
        keys: keeps the API key current.
        parked: a context in which this work only waits, so that its task makes room for another claim.
    """

    def __init__(
        self,
        flow: Flow,
        policy: RetryPolicy,
        random: random_module.Random,
        tallies: Tallies,
        *,
        clock: Callable[[], float],
        request_timeout_seconds: float,
        keys: KeyReader,
        parked: Callable[[Work], AbstractContextManager[None]],
    ) -> None:
        self._flow = flow
        self._policy = policy
        self._random = random
        self._tallies = tallies
        self._clock = clock
        self._request_timeout_seconds = request_timeout_seconds
        self._keys = keys
        self._parked = parked
        self.stopping = False

    async def call(  # noqa: C901 -- the whole way of a request, in one coroutine
        self,
        work: Work,
        ledger: Ledger,
        operation: Operation,
        send: Send,
        shows: Callable[[Answer], Ended],
        *,
        again: bool = False,
    ) -> Answer:
        """Send until an answer decides, or until short waits are not enough.

        Args:
            ledger: the work's, which keeps the last answer and the record of failures.
            send: makes the request.
            shows: judges an answer of success by the metadata that it shows.
            again: this is a repetition: the request is made once, and not repeated again.

        Raises:
            GiveBack: flow control lets nothing start for now, or the worker stops.
        """
        repeats, blame = again or work.is_tried_again(), ledger.blame
        while True:
            permit = None
            if not (self.stopping or work.is_probe or self._keys.is_due()):
                permit = self._flow.start(work.claim.completion_id, operation, urgent=work.is_urgent)
            if permit is None:
                permit = await self._admit(work, blame, operation)
            if self._clock() >= work.deadline:  # this process was frozen, or its store is away
                permit.end(DROPPED)
                raise GiveBack(Deferral.RELEASED)
            if repeats:
                self._tallies.requests_retried += 1
                repeats = False
            work.in_flight = True
            try:
                answer = await send(self._request_timeout_seconds)
                if answer.verdict.kind is not OK:
                    answer = in_context(self._flow, operation, answer)
                self._tallies.request(operation, answer)
                self._tell(permit, blame, answer, shows)
            except BaseException:  # an exception in the handling of the answer must not keep the slot either
                permit.drop()
                raise
            finally:
                work.in_flight = False
            kind = answer.verdict.kind
            if kind is not OK:
                if kind is Kind.THROTTLED:
                    # Let other tasks line up first, or this one could hold them up for ever.
                    await asyncio.sleep(0)
                    continue
                if kind is Kind.RETRY and not (again or work.is_probe or self.stopping):
                    answer = await self._retry(
                        answer, work, lambda: self.call(work, ledger, operation, send, shows, again=True)
                    )
            if not again:
                ledger.answered(answer, operation)
            return answer

    def _tell(self, permit: Permit, blame: Blame, answer: Answer, shows: Callable[[Answer], Ended]) -> None:
        """Report a request's end to flow control.

        Raises:
            GiveBack: this completion is throttled while others pass.
        """
        verdict, operation = answer.verdict, permit.operation
        if verdict.kind is OK:
            word = shows(answer)
            if word is not SUCCEEDED and word.end is End.FAILED:
                word = msgspec.structs.replace(word, status=verdict.status, request_id=verdict.request_id)
            permit.end(word if verdict.rate_limit is None else with_limits(word, verdict))
            blame.passed()
        elif verdict.kind is Kind.THROTTLED:
            times = blame.throttled(operation) - THROTTLED_ALONE
            permit.end(ended(verdict, alone=times >= 0))
            if times >= 0:
                raise GiveBack(Deferral.SNOOZED, alone_seconds(times, self._random))
        else:
            if verdict.kind in _FAILURES:
                blame.failed(operation, envelope=verdict.envelope, is_probe=permit.is_probe)
            permit.end(ended(verdict, guilty=blame.is_guilty))

    async def _retry(self, failed: Answer, work: Work, again: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a failed request while short waits are enough; return the last answer."""

        async def sleep(seconds: float) -> None:
            with self._parked(work):
                await asyncio.sleep(seconds)

        def may_wait(seconds: float) -> bool:
            ends_at = self._clock() + seconds
            return (
                seconds <= SHORT_WAIT_SECONDS
                and ends_at < work.deadline
                and self._flow.gate.is_open
                and not self._flow.is_paused
                and self._flow.may_retry()
            )

        return await retry(
            failed,
            again,
            policy=self._policy,
            max_tries=self._policy.max_tries,
            may_wait=may_wait,
            sleep=sleep,
            random=self._random,
        )

    async def _admit(self, work: Work, blame: Blame, operation: Operation) -> Permit:
        """Wait for the request's permit, with a current API key."""
        if work.is_probe or self._keys.is_due():
            await self._keys.refresh(probe=work.is_probe)
        if self.stopping:
            raise GiveBack(Deferral.RELEASED)
        try:
            completion_id, urgent = work.claim.completion_id, work.is_urgent
            return await self._flow.admit(completion_id, operation, probe=work.is_probe, urgent=urgent)
        except (Halted, Paused):
            raise GiveBack(Deferral.RELEASED) from None
        except Closed as closed:
            seconds = min(closed.delay_seconds, _LONGEST_SNOOZE_SECONDS)
            if blame.was_throttled:
                seconds = min(closed.delay_seconds, _ALONE_SECONDS[1]) + _LETS_OTHERS_GO_SECONDS
            raise GiveBack(Deferral.SNOOZED, seconds) from None


def in_context(flow: Flow, operation: Operation, answer: Answer) -> Answer:
    """The answer, with a verdict that takes earlier answers of this run into account."""
    verdict = answer.verdict
    if verdict.about == "unclear" and flow.gate.successes(operation):
        # This kind of call has worked before, so the URL is right: the completion is missing.
        verdict = msgspec.structs.replace(verdict, kind=Kind.NOT_FOUND, halt=None)
    elif verdict.kind is not Kind.OK and (verdict.delay_seconds or 0.0) > _LONGEST_PAUSE_SECONDS:
        verdict = msgspec.structs.replace(verdict, kind=Kind.HALTED, halt=Halt.QUOTA)
    else:
        return answer
    return msgspec.structs.replace(answer, verdict=verdict)


def ended(verdict: Verdict, *, guilty: bool = False, alone: bool = False) -> Ended:
    """Translate a verdict into flow control's terms.

    Args:
        guilty: others got through while this completion failed.
        alone: others passed while this completion was throttled.
    """
    match verdict.kind:
        case Kind.OK:
            return SUCCEEDED
        case Kind.THROTTLED:
            end, reason = End.THROTTLED, ""
        case Kind.HALTED:
            end, reason = End.FAILED, str(verdict.halt or REFUSED)
        case Kind.RETRY:
            end, reason = End.FAILED, _failure_reason(verdict)
        case Kind.NOT_FOUND:
            end, reason = End.ABSENT, ""
        case Kind.REJECTED:
            end, reason = End.REJECTED, ""
        case _:
            assert_never(verdict.kind)
    word = Ended(
        end,
        reason,
        delay_seconds=verdict.pause_seconds,
        slow_down=verdict.slow_down,
        alone=alone,
        guilty=guilty,
        error=verdict.error,
        status=verdict.status,
        request_id=verdict.request_id,
    )
    return with_limits(word, verdict)


def _failure_reason(verdict: Verdict) -> str:
    if verdict.foreign:
        return FOREIGN
    is_client_error = verdict.status is not None and verdict.status // 100 == 4  # noqa: PLR2004 -- the class 4xx
    if is_client_error and verdict.status not in _TROUBLE and not verdict.envelope:
        return REFUSED
    return OUTAGE


def with_limits(word: Ended, verdict: Verdict) -> Ended:
    """Add the limits that the answer's headers announce, if any."""
    limit = verdict.rate_limit
    if limit is None:
        return word
    limits = Limits(limit.limit_requests, limit.remaining_requests, limit.reset_seconds)
    return msgspec.structs.replace(word, limits=limits)


def alone_seconds(times: int, random: random_module.Random) -> float:
    """How long the queue keeps a completion that was throttled `times` more while others passed; jittered."""
    shortest, longest = _ALONE_SECONDS
    return min(longest, shortest * 2.0 ** min(times, 20)) * random.uniform(0.75, 1.25)
