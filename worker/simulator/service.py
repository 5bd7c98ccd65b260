"""The simulated service: each request is watched, admitted or failed, delayed and carried out."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from msgspec.structs import replace

from worker.simulator import answers
from worker.simulator.answers import NO_ANSWER, PROCESSING_TIME, Answer, RequestError
from worker.simulator.delay import draw_seconds
from worker.simulator.faults import KINDS, NOTHING, Kind, Scene, kind_of
from worker.simulator.hints import rate_limit_headers, retry_after
from worker.simulator.kinds import Fault, draw_fault
from worker.simulator.limiter import Limiter, limiter_for
from worker.simulator.operations import Action, Operations, Times
from worker.simulator.options import Options
from worker.simulator.requests import Call
from worker.simulator.store import Store
from worker.simulator.watch import Closures, Counters, OneWriter

_MAX_BODY_BYTES = 1_048_576
_NO_TIMES = Times()


@dataclass(slots=True)
class Switches:
    """States of the account and the service that can be switched at run time.

    Args:
        bad_key: every key is refused with 401.
        missing_scope: 401 because the key lacks a scope.
        forbidden: 403.
        quota_exhausted: 429 that waiting does not end.
        outage: every request gets a 503, or no answer.
    """

    bad_key: bool = False
    missing_scope: bool = False
    forbidden: bool = False
    quota_exhausted: bool = False
    outage: Literal["overloaded", "dropped"] | None = None


class Incoming(Protocol):
    """The headers and body of a request."""

    def header(self, name: str) -> str:
        """Return the header's value; empty if missing."""

    async def body(self) -> bytes:
        """Return the whole body."""


class Service:
    """The simulated service, without sockets.

    Args:
        clock: monotonic Unix time in seconds.
        sleep: waits this many seconds.
    """

    def __init__(
        self, options: Options, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self.clock = clock
        self.store = Store()
        self.counters = Counters()
        self.writer = OneWriter(self.counters)
        self.switches = Switches()
        self.next_faults: deque[Fault] = deque()
        self.stopping = asyncio.Event()
        self._sleep = sleep
        self._closures = Closures()
        self._operations = Operations(self.store, self.counters, options)
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._limiter: Limiter | None = None
        self._admitted = 0
        self._options = options
        self._seed_lots()
        self._start_limiter()

    @property
    def options(self) -> Options:
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        before, self._options = self._options, options
        self._operations.options = options
        if options.seed != before.seed:
            self._seed_lots()
        if options.limit != before.limit:
            self._start_limiter()

    def _seed_lots(self) -> None:
        """Make separate random generators, so that one option does not change the draws of another."""
        seed = self._options.seed
        self._ids, self._lags, self._latencies, self._faults, self._stale = (
            Random(None if seed is None else f"{seed} {name}")  # noqa: S311 -- reproducible draws, no secrets
            for name in ("ids", "lags", "latencies", "faults", "stale reads")
        )

    def _start_limiter(self) -> None:
        limit = self._options.limit
        self._limiter = None if limit is None else limiter_for(limit)
        self._admitted = 0

    def request_id(self) -> str:
        """Return a new value for the ``x-request-id`` header."""
        return f"req_{self._ids.getrandbits(128):032x}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked whenever a request arrives, fails or ends."""
        if condition():
            return
        waiter = condition, asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            self._waiters.remove(waiter)

    def _notify(self) -> None:
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)

    async def answer(self, call: Call, incoming: Incoming) -> Answer:
        """Answer one request, and watch it from its arrival until the answer is ready."""
        counters = self.counters
        counters.in_flight += 1
        counters.in_flight_peak = max(counters.in_flight_peak, counters.in_flight)
        now = self.clock()
        if self._closures.hold(now):
            counters.started_while_closed += 1
        watched = call.operation in ("update", "get")
        ticket = self.writer.enter(call.completion_id, call.operation, now) if watched else None
        self._notify()
        status, abandoned = NO_ANSWER, True
        try:
            answer = await self._answer(call, incoming, now)
            status, abandoned = answer.status if answer.arrives else NO_ANSWER, False
        finally:
            if ticket:
                self.writer.leave(ticket, self.clock(), abandoned=abandoned)
            counters.in_flight -= 1
            counters.ended(call.operation, status)
            self._notify()
        return answer

    async def _answer(self, call: Call, incoming: Incoming, since: float) -> Answer:
        """Answer a request that arrived at this Unix time, with the headers of every answer."""
        headers = {"X-Request-Id": self.request_id()}
        body = await incoming.body()
        try:
            answer = await self._undergo(call, incoming, body, headers)
        except RequestError as error:
            answer = error.answer()
        if answer.gateway:
            return answer
        headers[PROCESSING_TIME] = str(int((self.clock() - since) * 1_000))
        return replace(answer, headers={**headers, **answer.headers})

    async def _undergo(self, call: Call, incoming: Incoming, body: bytes, headers: dict[str, str]) -> Answer:
        """Apply account checks, limits and faults in order; add to the answer's headers."""
        if outage := self.switches.outage:
            return self._replied(KINDS[outage], call)
        self._check_account(incoming)
        self._check_limit(headers)
        fault = self._draw_fault(call, body)
        if fault is None:
            return await self._carry_out(call, body, incoming, headers)
        return await self._go_wrong(fault, call, body, incoming, headers)

    async def _go_wrong(
        self, fault: Fault, call: Call, body: bytes, incoming: Incoming, headers: dict[str, str]
    ) -> Answer:
        """Return the answer of a fault.

        Raises:
            RequestError: the request is carried out first, and is refused.
        """
        kind = kind_of(fault)
        answer = NOTHING
        if kind.done or fault.done:
            answer = await self._carry_out(call, body, incoming, headers)
        self.counters.faults[fault.name] += 1
        self._notify()
        if kind.waits:
            seconds = draw_seconds(kind.waits(self._options), self._faults)
            await (self._sleep(seconds) if math.isfinite(seconds) else self.stopping.wait())
        return self._replied(kind, call, answer)

    def _replied(self, kind: Kind, call: Call, answer: Answer = NOTHING) -> Answer:
        """Return the answer of this kind of fault; an announced wait is then watched."""
        now = self.clock()
        reply = kind.reply(Scene(call, self._options, self.store, now, answer))
        for name, value in reply.headers.items():
            if name.lower() == "retry-after" and value.isdecimal():
                self._close(now + int(value), now)
        return reply

    def _check_account(self, incoming: Incoming) -> None:
        """Raise RequestError if the key or its account is refused."""
        scheme, _, token = incoming.header("Authorization").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else incoming.header("api-key")
        if not key:
            raise answers.no_key()
        good_key = self._options.api_key
        if self.switches.bad_key or (good_key is not None and key != good_key):
            raise answers.bad_key(key)
        if self.switches.missing_scope:
            raise answers.missing_scope()
        if self.switches.forbidden:
            raise answers.forbidden()
        if self.switches.quota_exhausted:
            raise answers.quota_exhausted(self._options.quota_code)

    def _check_limit(self, headers: dict[str, str]) -> None:
        """Raise RequestError if the rate limit rejects the request; add the headers about the limit."""
        limit = self._options.limit
        if limit is None or self._limiter is None:
            return
        now = self.clock()
        admission = self._limiter.take(now)
        self._admitted += admission.admitted
        headers |= rate_limit_headers(limit, admission, self._admitted)
        if not admission.admitted:
            self.counters.throttled += 1
            hint, until = retry_after(limit.hint, admission.wait_seconds, now)
            headers |= hint
            self._close(until, now)
            raise answers.throttled(limit.code, limit.requests_per_minute)

    def _close(self, until: float | None, now: float) -> None:
        if until is not None:
            self._closures.add(now + self._options.closed_grace_seconds, until, now)

    def _draw_fault(self, call: Call, body: bytes) -> Fault | None:
        if self.next_faults:
            return self.next_faults.popleft()
        faults = self._options.faults
        return draw_fault(faults, call, body, self._faults) if faults else None

    async def _carry_out(self, call: Call, body: bytes, incoming: Incoming, headers: dict[str, str]) -> Answer:
        if len(body) > _MAX_BODY_BYTES:
            raise RequestError(413, f"Request body is larger than {_MAX_BODY_BYTES} bytes.")
        options = self._options
        act = self._operations.prepare(
            call, body, incoming.header("Content-Type"), self._times(call), headers["X-Request-Id"]
        )
        if call.operation != "update":
            return await self._after(draw_seconds(options.latency, self._latencies), act)
        latency = options.latency if options.update_latency is None else options.update_latency
        seconds = draw_seconds(latency, self._latencies)
        if not seconds or self._latencies.random() < 0.5:  # noqa: PLR2004 -- half of the updates
            return await self._after(seconds, act)
        answer = act(self.clock())
        await self._sleep(seconds)
        return answer

    def _times(self, call: Call) -> Times:
        options = self._options
        if call.operation == "create":
            return Times(
                lag_seconds=draw_seconds(options.lag_seconds, self._lags),
                stream_seconds=draw_seconds(options.stream_seconds, self._lags),
            )
        if options.stale_reads_seconds and call.operation in ("get", "list"):
            return Times(stale_seconds=draw_seconds(options.stale_reads_seconds, self._stale))
        return _NO_TIMES

    async def _after(self, seconds: float, act: Action) -> Answer:
        if seconds:
            await self._sleep(seconds)
        return act(self.clock())
