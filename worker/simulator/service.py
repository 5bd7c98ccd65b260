"""One request's way through the simulated service: watched, admitted or failed, delayed, carried out."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, Protocol

from worker.simulator import answers
from worker.simulator.answers import DROPPED, NO_ANSWER, Answer, RequestError
from worker.simulator.hints import rate_limit_headers, retry_after
from worker.simulator.limiter import Limiter, limiter_for
from worker.simulator.operations import Action, Operations
from worker.simulator.options import FaultKind, Options, draw_seconds
from worker.simulator.requests import Call
from worker.simulator.store import Store
from worker.simulator.watch import Closures, Counters, OneWriter

_SPOILING: frozenset[FaultKind] = frozenset({"cut_off", "malformed", "empty"})
_FAILURES: dict[FaultKind, Answer] = {
    "internal_error": answers.internal_error().answer(),
    "bad_gateway": answers.BAD_GATEWAY,
    "overloaded": answers.overloaded().answer(),
    "unauthorized": answers.bad_key("").answer(),
    "bare_string": answers.BARE_STRING,
    "dropped": DROPPED,
}
_MAX_BODY_BYTES = 1_048_576


@dataclass(slots=True)
class Switches:
    """States of the account and the service that are turned on and off at run time.

    Args:
        bad_key: every key is refused with 401.
        missing_scope: 401 of the other kind: the key is good, but not for this.
        forbidden: 403.
        quota_exhausted: 429 that no waiting helps against.
        outage: every request gets a 503, or none gets an answer.
    """

    bad_key: bool = False
    missing_scope: bool = False
    forbidden: bool = False
    quota_exhausted: bool = False
    outage: Literal["overloaded", "dropped"] | None = None


class Incoming(Protocol):
    """What the service needs of a request beside its first line."""

    def header(self, name: str) -> str:
        """The header's value; empty where there is none."""

    async def body(self) -> bytes:
        """The whole body."""


class Service:
    """The simulated service, without its sockets.

    Args:
        clock: Unix time in seconds that never goes back.
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
        self.next_faults: deque[FaultKind] = deque()
        self.stopping = asyncio.Event()
        self._sleep = sleep
        self._closures = Closures()
        self._operations = Operations(self.store, self.counters, options)
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._limiter: Limiter | None = None
        self._admitted = 0
        self._options = options
        self._faulty = options.faults.total > 0
        self._seed_lots()
        self._start_limiter()

    @property
    def options(self) -> Options:
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        before, self._options = self._options, options
        self._operations.options = options
        self._faulty = options.faults.total > 0
        if options.seed != before.seed:
            self._seed_lots()
        if options.limit != before.limit:
            self._start_limiter()

    def _seed_lots(self) -> None:
        """Separate lots, so that ordering one thing does not change how the others fall."""
        seed = self._options.seed
        self._ids, self._lags, self._latencies, self._faults = (
            Random(None if seed is None else f"{seed} {name}")  # noqa: S311 -- lots that can be drawn again, no secrets
            for name in ("ids", "lags", "latencies", "faults")
        )

    def _start_limiter(self) -> None:
        limit = self._options.limit
        self._limiter = None if limit is None else limiter_for(limit)
        self._admitted = 0

    def request_id(self) -> str:
        """A new one, for the ``x-request-id`` of an answer."""
        return f"req_{self._ids.getrandbits(128):032x}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at whenever a request comes, fails or ends."""
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
            answer = await self._answer(call, incoming)
            status, abandoned = answer.status if answer.delivery == "whole" else NO_ANSWER, False
        finally:
            if ticket:
                self.writer.leave(ticket, self.clock(), abandoned=abandoned)
            counters.in_flight -= 1
            counters.ended(call.operation, status)
            self._notify()
        return answer

    async def _answer(self, call: Call, incoming: Incoming) -> Answer:
        headers = {"X-Request-Id": self.request_id()}
        body = await incoming.body()
        try:
            answer = await self._undergo(call, incoming, body, headers)
        except RequestError as error:
            answer = error.answer()
        return replace(answer, headers=headers)

    async def _undergo(self, call: Call, incoming: Incoming, body: bytes, headers: dict[str, str]) -> Answer:
        """Everything that may stand between a request and its answer, in order; adds to the answer's headers."""
        if outage := self.switches.outage:
            return self._failed(outage, headers)
        self._check_account(incoming)
        self._check_limit(headers)
        fault = self._draw_fault(call)
        if fault == "hang":
            self._count_fault(fault)
            await self.stopping.wait()
            return DROPPED
        if fault and fault not in _SPOILING:
            self._count_fault(fault)
            return self._failed(fault, headers)
        if len(body) > _MAX_BODY_BYTES:
            raise RequestError(413, f"Request body is larger than {_MAX_BODY_BYTES} bytes.")
        answer = await self._carry_out(call, body, incoming.header("Content-Type"), headers["X-Request-Id"])
        if fault:
            self._count_fault(fault)
            return _spoiled(answer, fault)
        return answer

    def _check_account(self, incoming: Incoming) -> None:
        """Raise RequestError where the key, or what it stands for, is refused."""
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
        """Raise RequestError where the rate limit rejects the request; adds what the answer says of the limit."""
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

    def _draw_fault(self, call: Call) -> FaultKind | None:
        if self.next_faults:
            return self.next_faults.popleft()
        faults = self._options.faults
        if not self._faulty or (faults.updates_only and call.operation != "update"):
            return None
        return faults.draw(self._faults)

    def _count_fault(self, fault: FaultKind) -> None:
        self.counters.faults[fault] += 1
        self._notify()

    def _failed(self, fault: FaultKind, headers: dict[str, str]) -> Answer:
        """The answer to a request that is not carried out."""
        if fault == "quota":
            return answers.quota_exhausted(self._options.quota_code).answer()
        seconds = self._options.faults.retry_after_seconds
        if fault == "overloaded" and seconds is not None:
            now = self.clock()
            hint, until = retry_after("seconds", seconds, now)
            headers |= hint
            self._close(until, now)
        return _FAILURES[fault]

    async def _carry_out(self, call: Call, body: bytes, content_type: str, request_id: str) -> Answer:
        options = self._options
        lag_seconds = draw_seconds(options.lag_seconds, self._lags) if call.operation == "create" else 0.0
        act = self._operations.prepare(call, body, content_type, request_id=request_id, lag_seconds=lag_seconds)
        if call.operation != "update":
            return await self._after(draw_seconds(options.latency, self._latencies), act)
        latency = options.latency if options.update_latency is None else options.update_latency
        seconds = draw_seconds(latency, self._latencies)
        if not seconds or self._latencies.random() < 0.5:  # noqa: PLR2004 -- heads or tails
            return await self._after(seconds, act)
        answer = act(self.clock())
        await self._sleep(seconds)
        return answer

    async def _after(self, seconds: float, act: Action) -> Answer:
        if seconds:
            await self._sleep(seconds)
        return act(self.clock())


def _spoiled(answer: Answer, fault: FaultKind) -> Answer:
    """What is left of the answer to a request that was carried out."""
    match fault:
        case "cut_off":
            return replace(answer, delivery="cut_off")
        case "malformed":
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        case _:
            return replace(answer, body=b"")
