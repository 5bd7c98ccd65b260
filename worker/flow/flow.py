"""The one face of flow control: may anything run, how many at once, when is the next?"""

import math
import random as random_module
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec

from worker.flow.concurrency import Concurrency
from worker.flow.controls import Controls
from worker.flow.ended import Ended, Operation
from worker.flow.gate import Cause, Gate, GateEvent, GateState
from worker.flow.line import Line
from worker.flow.pacer import Pacer
from worker.flow.permit import Permit
from worker.flow.quota import GrantedQuota

_SNOOZED_SECONDS = 3.0  # after a wait, until all that waited is claimed again
_JITTER_SECONDS = (0.05, 0.25)  # so that replicas do not all come back at once


class Halted(Exception):
    """The gate is halted: give the claim back."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"halted: {reason}")
        self.reason = reason


class Closed(Exception):
    """The service asked everybody to wait for longer than the caller has patience: give the claim back.

    Args:
        delay_seconds: until then.
    """

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"closed for another {delay_seconds:.3f} s")
        self.delay_seconds = delay_seconds


class Paused(Exception):
    """Somebody has paused the queue: give the claim back."""


@dataclass(frozen=True, slots=True)
class FlowState:
    """What flow control is doing, for people.

    Args:
        rate_per_second: what is aimed at; while no limit is known, what was sent of late.
        rate_limit_per_second: the service's limit as this worker has found it, or an earlier run; None while unknown.
        slots: how many requests may run at once.
        throttled: answers 429 so far that were about the rate.
        requests: started so far.
        seconds_closed: how long a ``Retry-After`` kept everybody waiting, in sum.
        gate: ``open``, ``halted`` or ``half_open``.
        cause: why it is not open, by the answer that did it; None while it is open.
        slowed_by: what twenty completions in a row met alike: only one request a second is made.
        halted_for_seconds: how long everything has been halted; None when the gate is open.
        next_probe_in_seconds: None when the gate is open or a probe is under way.
        closed_for_seconds: how much longer a ``Retry-After`` runs; 0 when none does.
        got_through_seconds_ago: when the last request of each kind started that got through, by ``get`` and ``update``.
    """

    rate_per_second: float
    rate_limit_per_second: float | None
    in_flight: int
    slots: int
    throttled: int
    requests: int
    seconds_closed: float
    gate: GateState
    cause: Cause | None
    slowed_by: Cause | None
    halted_for_seconds: float | None
    next_probe_in_seconds: float | None
    closed_for_seconds: float
    got_through_seconds_ago: dict[Operation, float] = field(default_factory=dict)

    @property
    def halt_reason(self) -> str | None:
        return self.cause.reason if self.cause else None


def parse_state(text: str) -> FlowState | None:
    """Read what another worker wrote of itself, as JSON; None where its release says other things."""
    try:
        return msgspec.json.decode(text, type=FlowState)
    except (msgspec.DecodeError, RecursionError):
        return None


def _ignore(*_: object) -> None:
    pass


class Flow:
    """Finds and keeps the service's limits, known or hidden, and halts when the service refuses everybody.

    To be used from one event loop. While no limit is known, the requests at once double every second, and grow by a
    thirty-second with every round trip on top, until the first refusal.

    Args:
        max_concurrency: requests at once, at most.
        requests_per_minute: a cap to keep, whatever the service allows.
        patience_seconds: how long a ``Retry-After`` may run for claims to be held until its end.
        on_short: where that cap is a quota of several workers: is called when a grant is needed; see `grant`.
        clock: seconds, never going back.
        random: for the jitter.
        on_transition: called once when the gate halts (or the reason changes) and once when it opens again.
        on_refused: called for each answer that asks to wait, with the seconds until requests may start again.

    Raises:
        ValueError: `max_concurrency` or `requests_per_minute` is not positive.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_minute: float | None = None,
        patience_seconds: float,
        on_short: Callable[[], None] | None = None,
        clock: Callable[[], float],
        random: random_module.Random | None = None,
        on_transition: Callable[[GateEvent], None] = _ignore,
        on_refused: Callable[[float, Ended], None] = _ignore,
    ) -> None:
        if requests_per_minute is not None and not requests_per_minute > 0.0:
            raise ValueError(f"requests_per_minute must be more than 0, not {requests_per_minute}")
        now = clock()
        dice = random or random_module.Random()  # noqa: S311 -- jitter, no secret
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._quota = None if on_short is None or requests_per_minute is None else GrantedQuota(on_short)
        self._controls = Controls(
            gate=Gate(now),
            concurrency=Concurrency(max_concurrency, now),
            pacer=Pacer(now, requests_per_minute=requests_per_minute, quota=self._quota),
            jitter_seconds=lambda: dice.uniform(*_JITTER_SECONDS),
            on_transition=on_transition,
            on_refused=on_refused,
        )
        self._line = Line(self._controls, clock)
        self._on_end = self._ended  # bound once, and not for each request

    def __repr__(self) -> str:
        return f"<Flow [{self._controls.gate.state}, {self._controls.in_flight} in flight, {len(self._line)} waiting]>"

    def begin_at(self, limit_per_second: float | None, age_seconds: float = 0.0) -> None:
        """Start from the limit that an earlier run has found, before the first request.

        A little below it is the rate to start with. One that was found long ago may be another by now: it is sought
        again. What is no positive number, as None, changes nothing.
        """
        if limit_per_second is not None and 0.0 < limit_per_second < math.inf:
            self._controls.pacer.begin_at(self._clock(), limit_per_second, age_seconds=age_seconds)

    def start(self, completion_id: str, operation: Operation, *, urgent: bool = False) -> Permit | None:
        """The permit of a request that may start at once; None when it has to wait for `admit`."""
        now = self._clock()
        if self._line or not self._controls.start(now):
            return None
        if not urgent:
            return Permit(completion_id, operation, now, self._on_end)
        self._controls.urgent_in_flight += 1
        return Permit(completion_id, operation, now, self._on_end, is_urgent=True)

    async def admit(
        self, completion_id: str, operation: Operation, *, probe: bool = False, urgent: bool = False
    ) -> Permit:
        """Wait until a request may start: gate, then slot, then pace.

        Args:
            completion_id, operation: whose request it is, and which.
            probe: whether its work is the probe of a halted gate; see `take_probe`.
            urgent: whether it goes before others that wait; see `Line`.

        Raises:
            Paused: nothing is to start, from now or meanwhile.
            Halted: the gate is halted, or halts meanwhile.
            Closed: the service asks, now or meanwhile, to wait for longer than there is patience for.
        """
        permit = self.start(completion_id, operation, urgent=urgent)
        if permit is not None:
            return permit
        now = self._clock()
        while True:
            if self._controls.paused:
                raise Paused
            if not self._controls.gate.is_open:
                return self._probe(completion_id, operation, now, probe=probe)
            closed_seconds = self._controls.pacer.closed_for_seconds(now)
            if closed_seconds > self._patience_seconds:
                raise Closed(closed_seconds)
            started_at = await self._line.turn(urgent=urgent)
            now = self._clock()
            if started_at is not None:
                if self._controls.passable(now):
                    return Permit(completion_id, operation, started_at, self._on_end, is_urgent=urgent)
                self._controls.give_back(
                    started_at, urgent=urgent
                )  # it closed after the turn had come, before this task went on

    async def ready(self) -> int | None:
        """Wait until claiming makes sense.

        Returns:
            None when any number of claims can be worked on; 1 when the gate is halted and a claim is wanted for a
            probe, or when all that were tried of late met the same refusal.
        """
        while True:
            now = self._clock()
            gate = self._controls.gate
            if self._controls.paused:
                wait_seconds = math.inf
            elif not gate.is_open:
                closed_seconds = self._controls.pacer.closed_for_seconds(now)
                wait_seconds = closed_seconds if gate.wants_others else self._controls.probe_in_seconds(now)
                if wait_seconds <= 0.0:
                    return 1
            else:
                wait_seconds = self._controls.pacer.closed_for_seconds(now) - self._patience_seconds
                if wait_seconds <= 0.0:
                    return 1 if gate.is_cautious else None
            await self._line.change(wait_seconds)

    def starts_within(self, seconds: float) -> int | None:
        """How many requests may start within so many seconds, one at least; None while no limit is known."""
        return self._controls.pacer.starts_within(self._clock(), seconds)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._line)

    def pause(self, *, paused: bool) -> None:
        """Let nothing start any more, no probe either, and send back those that wait; or let all go on."""
        if paused is not self._controls.paused:
            self._controls.paused = paused
            self._controls.changes += 1
            self._line.move()

    @property
    def is_paused(self) -> bool:
        """Whether nothing may start, since somebody has said so."""
        return self._controls.paused

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._controls.in_flight

    @property
    def is_open(self) -> bool:
        """Whether nothing is halted."""
        return self._controls.gate.is_open

    def take_probe(self, completion_id: str) -> bool:
        """Whether what was just claimed is the probe of the halted gate; if so, `probe_ended` has to follow."""
        return self._controls.gate.take_probe(self._clock(), completion_id)

    def is_halted_by_few(self) -> bool:
        """Whether those that met the halt are few, and others got through before with the same kind of call."""
        return self._controls.gate.is_halted_by_few

    def next_probe_in_seconds(self) -> float:
        """Seconds until the next probe of a halted gate; infinity while one is under way."""
        return self._controls.probe_in_seconds(self._clock())

    def probe_ended(self) -> None:
        """The work that was the probe is over, whatever became of it."""
        self._controls.gate.probe_ended(self._clock())
        self._controls.changed(None, probe=True)
        self._line.move()

    def has_failed(self, completion_id: str) -> bool:
        """Whether this completion met the halt itself, so that a probe should rather take another one."""
        return self._controls.gate.has_failed(completion_id)

    def nothing_else(self, in_hand: Collection[str]) -> None:
        """Nothing more can be claimed: if all that is in hand has failed, there is nobody left who could get through.

        Args:
            in_hand: the completions that are worked on, and those that were given back after a failure.
        """
        now = self._clock()
        if self._controls.throttled_until + _SNOOZED_SECONDS < now:  # else others only wait, as they were told
            self._controls.changed(self._controls.gate.nothing_else(now, in_hand))
            self._line.move()

    def fault(self, completion_id: str, word: Ended, *, probe: bool = False) -> None:
        """An exception of ours ended the work on a completion.

        Args:
            probe: whether this work was the probe of a halted gate.
        """
        event = self._controls.gate.fault(self._clock(), completion_id, word, is_probe=probe)
        self._controls.changed(event, probe=probe)
        self._line.move()

    def others_got_through(self, operation: Operation, completion_id: str, since: float, *, elsewhere: bool) -> bool:
        """Whether another completion got through with a request of this kind that started after `since`.

        Args:
            since: by the flow's clock.
            elsewhere: whether what other workers say of themselves counts, too.
        """
        return self._controls.gate.others_got_through(operation, completion_id, since, elsewhere=elsewhere)

    def successes(self, operation: Operation) -> int:
        """How many requests of this kind got through so far."""
        return self._controls.gate.successes(operation)

    def alike(self) -> tuple[Cause, float] | None:
        """What twenty completions in a row met alike, none getting through between them, and for how many seconds."""
        return self._controls.gate.alike(self._clock())

    def trait(self) -> Cause | None:
        """What a completion has shown of the service that somebody has to look at, though it halts nothing as yet."""
        return self._controls.gate.trait()

    def new_key(self) -> None:
        """Another key is used from here on."""
        self._controls.gate.new_key(self._clock())
        self._controls.changed(None, probe=True)
        self._line.move()

    def may_retry(self) -> bool:
        """Spend a token of the retry budget: False when it is empty, and the retry has to go back to the queue."""
        return self._controls.budget.spend()

    def grant(self, requests: int, *, wait_seconds: float, interval_seconds: float) -> None:
        """Take in what the store has granted of the quota that is shared with other workers.

        Args:
            wait_seconds: until the first request may start.
            interval_seconds: from one to the next.
        """
        if self._quota is not None:
            self._quota.grant(self._clock() + wait_seconds, requests, interval_seconds)
            self._line.move()

    def others_refused(self, delay_seconds: float) -> None:
        """Another worker on the same quota met the limit: wait as it does, and aim lower."""
        self._controls.others_refused(self._clock(), delay_seconds)
        self._line.move()

    def others_paused(self, delay_seconds: float) -> None:
        """A service in trouble asked another worker to wait: wait as it does; that says nothing about the rate."""
        self._controls.others_paused(self._clock(), delay_seconds)
        self._line.move()

    def others_halted(self, reason: str, age_seconds: float) -> None:
        """Another worker was halted so long ago: here, the first failure for that reason is enough."""
        self._controls.gate.told(reason, halted_at=self._clock() - age_seconds)

    def others_succeeded(self, operation: Operation, age_seconds: float) -> None:
        """Something got through at another worker so long ago."""
        self._controls.gate.others_got_through_elsewhere(operation, self._clock() - max(0.0, age_seconds))

    def others_resumed(self) -> None:
        """Another worker's probe got through: where this one is halted, its own is due now."""
        self._controls.gate.probe_now(self._clock())
        self._controls.changed(None, probe=True)
        self._line.move()

    def snapshot(self) -> FlowState:
        """What is going on right now."""
        now = self._clock()
        controls = self._controls
        gate, pacer = controls.gate, controls.pacer
        return FlowState(
            rate_per_second=pacer.rate_per_second(now),
            rate_limit_per_second=pacer.limit_per_second,
            in_flight=controls.in_flight,
            slots=controls.concurrency.slots,
            throttled=controls.throttled,
            requests=controls.requests,
            seconds_closed=pacer.seconds_closed(now),
            gate=gate.state,
            cause=gate.cause,
            slowed_by=alike[0] if (alike := gate.alike(now)) else None,
            halted_for_seconds=gate.halted_seconds(now),
            next_probe_in_seconds=(gate.next_probe_in_seconds(now) if gate.state is GateState.HALTED else None),
            closed_for_seconds=pacer.closed_for_seconds(now),
            got_through_seconds_ago=gate.got_through_seconds_ago(now),
        )

    def _probe(self, completion_id: str, operation: Operation, now: float, *, probe: bool) -> Permit:
        if not probe or not self._controls.start_probe(now):
            cause = self._controls.gate.cause
            raise Halted(cause.reason if cause else "")
        return Permit(completion_id, operation, now, self._on_end, is_probe=True)

    def _ended(self, permit: Permit, ended: Ended) -> None:
        self._controls.ended(self._clock(), permit, ended)
        self._line.move()
