"""Read requests under flow control, retried until the service answers finally or nothing gets through any more."""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import structlog

from worker.api import Answer, Kind, RetryPolicy, Verdict, backoff_seconds
from worker.engine import Ending
from worker.engine.calls import THROTTLED_ALONE, alone_seconds, ended, in_context, with_limits
from worker.engine.clock import Clock
from worker.engine.keys import KeyReader, ReadKey
from worker.engine.showing import shown_by_read
from worker.engine.telling import Telling
from worker.flow import ANSWERED, OUTAGE, Cause, Ended, Flow, FlowState, Halted, Permit

T = TypeVar("T")

# Makes the request. Arguments: a time-out in seconds, and whether to use a new connection.
Send = Callable[[float, bool], Awaitable[Answer]]

_LOOKS = 20  # per halt timeout
_LONGEST_LOOK_SECONDS = 1.0
_SHORTEST_LOOK_SECONDS = 0.05
_THROTTLED_TIMEOUTS = 3  # with only 429 answers, before giving up
_LONGEST_PROBE_PAUSE_SECONDS = 1.0
_MOST_NAMED = 20  # of the failed ones, in `Unfinished`
_PATIENCE_SECONDS = float("inf")  # no queue could take a request back


class Unfinished(Exception):
    """Nothing gets through any more.

    Args:
        ending: ``halted``, ``outage``, ``stuck`` or ``closed``, as of a drain.
        cause: why the gate halted, in the service's own words; None if it did not.
        left: the first few failed reads, by name, with the error of each.
        closed_for_seconds: how much longer the service asks to wait.
    """

    def __init__(self, ending: Ending, cause: Cause | None, left: Mapping[str, str], closed_for_seconds: float) -> None:
        super().__init__(cause.sentence if cause else str(ending))
        self.ending = ending
        self.cause = cause
        self.left = dict(left)
        self.closed_for_seconds = closed_for_seconds


@dataclass(frozen=True, slots=True)
class Terms:
    """How requests are made. Times are in seconds.

    Args:
        requests_per_minute: a limit besides the service's own; None for none.
        halt_timeout_seconds: how long nothing may get through before `Unfinished` is raised.
    """

    max_concurrency: int = 64
    requests_per_minute: float | None = None
    request_timeout_seconds: float = 60.0
    halt_timeout_seconds: float = 60.0


@dataclass(slots=True)
class _Trouble:
    """The failures of one request so far; times are on the flow's clock."""

    failures: int = 0
    failed_at: float = 0.0
    throttles: int = 0
    throttled_at: float = 0.0


class Asking:
    """Set `nothing_more` once no further request will follow those under way."""

    def __init__(
        self,
        terms: Terms,
        *,
        read_key: ReadKey | None = None,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        logger: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        self.terms = terms
        clock = clock or Clock()
        self._clock = clock.monotonic
        telling = Telling(logger or structlog.get_logger().bind(), clock)
        self.flow = Flow(
            max_concurrency=terms.max_concurrency,
            requests_per_minute=terms.requests_per_minute,
            patience_seconds=_PATIENCE_SECONDS,
            clock=self._clock,
            on_transition=telling.gate_changed,
            on_refused=telling.refused,
        )
        self.nothing_more = False
        self.retries = 0
        self._keys = KeyReader(read_key, self.flow, self._clock)
        self._policy = policy or RetryPolicy()
        self._random = random_module.Random()  # noqa: S311 -- jitter, no secret
        self._in_hand: dict[str, str | None] = {}  # by name: the last error
        self._halted: set[str] = set()  # names that wait for the gate
        self._answered = 0

    def __repr__(self) -> str:
        return f"<Asking [{len(self._in_hand)} in hand, {self._answered} answered]>"

    def state(self) -> FlowState:
        """The state of flow control."""
        return self.flow.snapshot()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work, which calls `ask`, while any request gets through.

        Raises:
            Unfinished: nothing got through for longer than the terms allow.
        """
        working, watching = asyncio.create_task(work), asyncio.create_task(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else watching.result()
        finally:
            for task in (working, watching):
                task.cancel()
            for task in (working, watching):
                with suppress(asyncio.CancelledError, Exception):  # already raised above
                    await task

    async def ask(self, name: str, send: Send, shows: Callable[[Answer], Ended] = shown_by_read) -> Answer:
        """Send until the service answers finally: done, not found, or refused.

        Args:
            name: the completion's id, or another name for the request.
            shows: tells flow control what a successful answer proves.
        """
        trouble: _Trouble | None = None
        self._in_hand[name] = None
        try:
            while True:
                answer = await self._once(name, send, shows, trouble)
                kind = answer.verdict.kind
                if kind is Kind.OK or kind is Kind.NOT_FOUND or kind is Kind.REJECTED:
                    self._answered += 1
                    return answer
                trouble = trouble or _Trouble()
                self.retries += 1
                await self._wait(name, answer.verdict, trouble)
        finally:
            self._in_hand.pop(name, None)

    async def _once(self, name: str, send: Send, shows: Callable[[Answer], Ended], trouble: _Trouble | None) -> Answer:
        permit = None if self._keys.is_due() else self.flow.start(name, "get")
        if permit is None:
            permit = await self._permit(name)
        fresh = trouble is not None and trouble.failures > 0
        try:
            answer = in_context(self.flow, "get", await send(self.terms.request_timeout_seconds, fresh))
            permit.end(self._end_of(name, answer, shows, trouble))
        except BaseException:  # an exception in the handling of the answer must not keep the slot either
            permit.drop()
            raise
        finally:
            if permit.is_probe:
                self.flow.probe_ended()
        return answer

    def _end_of(self, name: str, answer: Answer, shows: Callable[[Answer], Ended], trouble: _Trouble | None) -> Ended:
        verdict = answer.verdict
        if verdict.kind is Kind.OK:
            return with_limits(shows(answer), verdict)
        if verdict.kind is Kind.NOT_FOUND and verdict.about == "completion":
            # For a reader, "not found" is an answer like any other.
            return with_limits(ANSWERED, verdict)
        return ended(verdict, guilty=self._is_guilty(name, verdict, trouble), alone=_is_alone(trouble))

    def _is_guilty(self, name: str, verdict: Verdict, trouble: _Trouble | None) -> bool:
        """Whether other requests got through since this one last failed."""
        if trouble is None or not trouble.failures:
            return False
        return self.flow.gate.others_got_through("get", name, trouble.failed_at, elsewhere=verdict.envelope)

    async def _wait(self, name: str, verdict: Verdict, trouble: _Trouble) -> None:
        """Wait before the next try; if the gate is halted, the gate itself says how long."""
        now = self._clock()
        if verdict.kind is Kind.THROTTLED:
            before = trouble.throttled_at
            if before and self.flow.gate.others_got_through("get", name, before, elsewhere=False):
                trouble.throttles += 1
            trouble.throttled_at = now
            times = trouble.throttles - THROTTLED_ALONE
            # Yield first, so that others in the line go before it: one request must not block them for ever.
            await asyncio.sleep(alone_seconds(times, self._random) if times >= 0 else 0)
            return
        trouble.failures += 1
        trouble.failed_at = now
        self._in_hand[name] = verdict.error or str(verdict.kind)
        if self.nothing_more:
            self.flow.nothing_else(self._in_hand.keys())
        if self.flow.gate.is_open:
            seconds = backoff_seconds(trouble.failures, self._policy, self._random)
            if not self.flow.may_retry():
                seconds = max(seconds, _LONGEST_LOOK_SECONDS)
            await asyncio.sleep(min(max(seconds, verdict.pause_seconds or 0.0), self.terms.halt_timeout_seconds))

    async def _permit(self, name: str) -> Permit:
        """Wait until the request may start; if the gate is halted, one request is chosen as its probe."""
        while True:
            if self._keys.is_due():
                await self._keys.refresh(probe=False)
            with suppress(Halted):
                return await self.flow.admit(name, "get")
            if not await self._is_probe(name):
                continue
            await self._keys.refresh(probe=True)
            try:
                return await self.flow.admit(name, "get", probe=True)
            except Halted:
                self.flow.probe_ended()

    async def _is_probe(self, name: str) -> bool:
        """Wait until the gate opens (False), or takes this request as its probe (True)."""
        self._halted.add(name)
        try:
            while True:
                await self.flow.ready()
                if self.flow.gate.is_open:
                    return False
                others = self.flow.gate.has_failed(name) and any(
                    not self.flow.gate.has_failed(each) for each in self._halted
                )
                if not others and self.flow.take_probe(name):
                    return True
                seconds = max(self.flow.next_probe_in_seconds(), _SHORTEST_LOOK_SECONDS)
                await asyncio.sleep(min(seconds, _LONGEST_PROBE_PAUSE_SECONDS))
        finally:
            self._halted.discard(name)

    async def _watch(self) -> Any:  # noqa: ANN401 -- it never returns
        """Check for ever whether anything gets through, as a drain does.

        Raises:
            Unfinished: nothing got through for too long.
        """
        timeout = self.terms.halt_timeout_seconds
        pause = min(max(timeout / _LOOKS, _SHORTEST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS)
        answered, progress_at, throttled = 0, self._clock(), 0
        while True:
            await asyncio.sleep(pause)
            state = self.flow.snapshot()
            if self._answered != answered or not self._in_hand:  # waiting for a slow reader of the output is no trouble
                answered, progress_at = self._answered, self._clock()
            quiet_seconds = self._clock() - progress_at
            if quiet_seconds < timeout:
                throttled = state.throttled
            if found := self._found(state, quiet_seconds, timeout, throttled_before=throttled):
                left = {name: error for name, error in self._in_hand.items() if error is not None}
                raise Unfinished(*found, dict(islice(left.items(), _MOST_NAMED)), state.closed_for_seconds)

    def _found(  # noqa: PLR0911 -- one return for each ending
        self, state: FlowState, quiet_seconds: float, timeout: float, *, throttled_before: int
    ) -> tuple[Ending, Cause | None] | None:
        alike = self.flow.alike()
        if alike is not None and alike[1] >= timeout:
            return Ending.HALTED, alike[0]
        if state.cause is not None:
            if (state.halted_for_seconds or 0.0) < timeout:
                return None
            if state.cause.reason == OUTAGE:
                return Ending.OUTAGE, state.cause
            return (Ending.STUCK if self.flow.gate.is_halted_by_few else Ending.HALTED), state.cause
        if state.closed_for_seconds > timeout:
            return Ending.CLOSED, None
        if quiet_seconds >= _THROTTLED_TIMEOUTS * timeout and state.throttled > throttled_before:
            return Ending.CLOSED, None
        if quiet_seconds < timeout or not self._in_hand or None in self._in_hand.values():
            return None
        trait = self.flow.gate.trait()
        return (Ending.HALTED, trait) if trait else (Ending.STUCK, None)


def _is_alone(trouble: _Trouble | None) -> bool:
    """Whether it was throttled repeatedly while others got through."""
    return trouble is not None and trouble.throttles >= THROTTLED_ALONE


async def in_parallel(count: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `count` instances at once; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
