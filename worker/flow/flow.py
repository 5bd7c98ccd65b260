"""The one face of flow control: may anything run, how many at once, when is the next?"""

import math
import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from worker.flow.allowance import Allowance
from worker.flow.concurrency import Concurrency
from worker.flow.controls import Controls
from worker.flow.gate import Gate, GateEvent, GateState
from worker.flow.line import Line
from worker.flow.pacer import Pacer

_JITTER_SECONDS = (0.05, 0.25)  # so that replicas do not all come back at once
_CLAIM_PATIENCE_SECONDS = 5.0
_INVITATION_SECONDS = 1.0  # how long a claim may take to become the probe before another one is asked for


class Halted(Exception):
    """The gate is halted: give the claim back.

    Args:
        reason: why.
        retry_in_seconds: when asking again makes sense.
    """

    def __init__(self, reason: str, retry_in_seconds: float) -> None:
        super().__init__(f"halted: {reason}")
        self.reason = reason
        self.retry_in_seconds = retry_in_seconds


class Closed(Exception):
    """The service asked everybody to wait for longer than the caller has patience: give the claim back.

    Args:
        delay_seconds: until then.
    """

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"closed for another {delay_seconds:.3f} s")
        self.delay_seconds = delay_seconds


@dataclass(frozen=True, slots=True)
class FlowState:
    """What flow control is doing, for people.

    Args:
        rate_per_second: what is aimed at; while no limit is known, what was sent of late.
        limit_found_per_second: the goodput at the last refusal; None while there was none.
        slots: how many requests may run at once.
        throttled: answers 429 so far that were about the rate.
        requests: started so far.
        seconds_closed: how long a ``Retry-After`` kept everybody waiting, in sum.
        gate: ``open``, ``halted`` or ``half_open``.
        halted_since: by the flow's clock.
        next_probe_in_seconds: None when the gate is open or a probe is under way.
        closed_for_seconds: how much longer a ``Retry-After`` runs; 0 when none does.
    """

    rate_per_second: float
    limit_found_per_second: float | None
    in_flight: int
    slots: int
    throttled: int
    requests: int
    seconds_closed: float
    gate: GateState
    halt_reason: str | None
    halted_since: float | None
    next_probe_in_seconds: float | None
    closed_for_seconds: float


def parse_state(text: str) -> FlowState | None:
    """Read what another worker wrote of itself, as JSON; None where its release says other things."""
    try:
        return msgspec.json.decode(text, type=FlowState)
    except msgspec.DecodeError:
        return None


class Permit:
    """One request's right to start now. Exactly one method is called, when the request has ended.

    Each gives the slot back at once. A second call raises `RuntimeError`.
    """

    __slots__ = ("_clock", "_completion_id", "_controls", "_line", "_probe", "_sent_at", "_spent")

    def __init__(  # noqa: PLR0917 -- made once a request, by `Flow` alone
        self,
        completion_id: str,
        sent_at: float,
        probe: bool,  # noqa: FBT001 -- likewise
        controls: Controls,
        line: Line,
        clock: Callable[[], float],
    ) -> None:
        self._completion_id = completion_id
        self._sent_at = sent_at
        self._probe = probe
        self._controls = controls
        self._line = line
        self._clock = clock
        self._spent = False

    def __repr__(self) -> str:
        return f"<Permit {'spent' if self._spent else 'running'}{' probe' if self._probe else ''}>"

    def accepted(
        self, *, limit: float | None = None, remaining: float | None = None, reset_seconds: float | None = None
    ) -> None:
        """The service answered, and neither refused, halted nor failed: a 404 or 400 counts, too.

        Args:
            limit, remaining, reset_seconds: the answer's ``x-ratelimit-*-requests`` headers, where it had them.
        """
        self._spend()
        self._controls.accepted(
            self._clock(),
            sent_at=self._sent_at,
            probe=self._probe,
            limit=limit,
            remaining=remaining,
            reset_seconds=reset_seconds,
        )
        self._line.move()

    def throttled(self, *, delay_seconds: float | None, slow_down: bool) -> None:
        """A 429 about the rate.

        Args:
            delay_seconds: what the service asked to wait; None when it did not say.
            slow_down: the answer's code was ``slow_down``.
        """
        self._spend()
        self._controls.refused(
            self._clock(),
            sent_at=self._sent_at,
            probe=self._probe,
            delay_seconds=delay_seconds,
            slow_down=slow_down,
        )
        self._line.move()

    def failed(self, *, delay_seconds: float | None = None) -> None:
        """No complete answer came, or a 5xx.

        Args:
            delay_seconds: what the service asked to wait, where it did: then everybody waits, as after a 429.
        """
        self._spend()
        self._controls.failed(
            self._clock(),
            self._completion_id,
            sent_at=self._sent_at,
            probe=self._probe,
            delay_seconds=delay_seconds,
        )
        self._line.move()

    def halted(self, reason: str) -> None:
        """Nothing will work until somebody acts: a bad key, no permission, an exhausted quota, a wrong URL."""
        self._spend()
        self._controls.halted(self._clock(), reason, sent_at=self._sent_at, probe=self._probe)
        self._line.move()

    def dropped(self) -> None:
        """The request was cancelled: no word about the service."""
        self._spend()
        self._controls.dropped(self._clock(), probe=self._probe)
        self._line.move()

    def _spend(self) -> None:
        if self._spent:
            raise RuntimeError("a permit ends once")
        self._spent = True


def _ignore(_: object) -> None:
    pass


class Flow:
    """Finds and keeps the service's limits, known or hidden, and halts when the service refuses everybody.

    To be used from one event loop. While no limit is known, the requests at once double every second, and grow by a
    thirty-second with every round trip on top, until the first refusal.

    Args:
        max_concurrency: requests at once, at most.
        requests_per_minute: a cap to keep, whatever the service allows.
        on_short: where that cap is one for several workers: is called when permits are needed; see `grant`.
        start_rate_per_second: the limit that an earlier run found (`FlowState.limit_found_per_second`): nine tenths
            of it, or somewhat more of a low one, are the rate to start with. What is no positive number counts as None.
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
        on_short: Callable[[], None] | None = None,
        start_rate_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: random_module.Random | None = None,
        on_transition: Callable[[GateEvent], None] = _ignore,
        on_refused: Callable[[float], None] = _ignore,
    ) -> None:
        if requests_per_minute is not None and not requests_per_minute > 0.0:
            raise ValueError(f"requests_per_minute must be more than 0, not {requests_per_minute}")
        if start_rate_per_second is not None and not 0.0 < start_rate_per_second < math.inf:
            start_rate_per_second = None
        now = clock()
        dice = random or random_module.Random()  # noqa: S311 -- jitter, no secret
        self._clock = clock
        self._allowance = None if on_short is None or requests_per_minute is None else Allowance(on_short)
        self._controls = Controls(
            gate=Gate(now),
            concurrency=Concurrency(max_concurrency, now),
            pacer=Pacer(
                now,
                requests_per_minute=requests_per_minute,
                allowance=self._allowance,
                start_per_second=start_rate_per_second,
            ),
            jitter_seconds=lambda: dice.uniform(*_JITTER_SECONDS),
            on_transition=on_transition,
            on_refused=on_refused,
        )
        self._line = Line(self._controls, clock)
        self._invited_until = now

    def __repr__(self) -> str:
        return f"<Flow [{self._controls.gate.state}, {self._controls.in_flight} in flight, {len(self._line)} waiting]>"

    def start(self, completion_id: str) -> Permit | None:
        """The permit of a request that may start at once; None when it has to wait for `admit`."""
        now = self._clock()
        if self._line or not self._controls.start(now):
            return None
        return Permit(completion_id, now, False, self._controls, self._line, self._clock)

    async def admit(self, completion_id: str, *, patience_seconds: float = 5.0) -> Permit:
        """Wait until a request may start: gate, then slot, then pace.

        While the gate is halted and a probe is due, the first to ask gets the permit of the probe.

        Args:
            completion_id: whose request it is.
            patience_seconds: how long a ``Retry-After`` may run for the caller to wait for its end.

        Raises:
            Halted: the gate is halted, or halts meanwhile.
            Closed: the service asks, now or meanwhile, to wait for longer than that.
        """
        permit = self.start(completion_id)
        if permit is not None:
            return permit
        now = self._clock()
        while True:
            if not self._controls.gate.is_open:
                return self._probe(completion_id, now)
            closed_seconds = self._controls.pacer.closed_for_seconds(now)
            if closed_seconds > patience_seconds:
                raise Closed(closed_seconds)
            started_at = await self._line.turn()
            now = self._clock()
            if started_at is not None:
                if self._controls.passable(now):
                    return self._permit(completion_id, started_at)
                self._controls.give_back(started_at)  # it closed after the turn had come, before this task went on

    async def ready(self) -> int | None:
        """Wait until claiming makes sense.

        Returns:
            None when any number of claims can be worked on; 1 when the gate is halted and a claim is wanted for the
            probe. If that claim makes no request, the next call asks for another one a second later.
        """
        while True:
            now = self._clock()
            if self._controls.gate.is_open:
                wait_seconds = self._controls.pacer.closed_for_seconds(now) - _CLAIM_PATIENCE_SECONDS
                if wait_seconds <= 0.0:
                    return None
            else:
                wait_seconds = max(self._controls.probe_in_seconds(now), self._invited_until - now)
                if wait_seconds <= 0.0:
                    self._invited_until = now + _INVITATION_SECONDS
                    return 1
            await self._line.change(wait_seconds)

    def may_retry(self) -> bool:
        """Spend a token of the retry budget: False when it is empty, and the retry has to go back to the queue."""
        return self._controls.budget.spend()

    def grant(self, permits: int, *, wait_seconds: float, interval_seconds: float) -> None:
        """Take in permits of the rate that is shared with other workers.

        Args:
            wait_seconds: until the first may be used.
            interval_seconds: from one to the next.
        """
        if self._allowance is not None:
            self._allowance.grant(self._clock() + wait_seconds, permits, interval_seconds)
            self._line.move()

    def others_refused(self, delay_seconds: float) -> None:
        """Another worker on the same quota met the limit: wait as it does, and aim lower."""
        self._controls.others_refused(self._clock(), delay_seconds)
        self._line.move()

    def others_halted(self, reason: str, age_seconds: float) -> None:
        """Another worker was halted so long ago: what halts one halts all, unless this one has resumed since then."""
        now = self._clock()
        self._controls.others_halted(now, reason, halted_at=now - age_seconds)
        self._line.move()

    def others_resumed(self) -> None:
        """Another worker's probe got through: where this one is halted, its own is due now."""
        self._controls.others_resumed(self._clock())
        self._line.move()

    def snapshot(self) -> FlowState:
        """What is going on right now."""
        now = self._clock()
        controls = self._controls
        gate, pacer = controls.gate, controls.pacer
        return FlowState(
            rate_per_second=pacer.rate_per_second(now),
            limit_found_per_second=pacer.limit_found_per_second,
            in_flight=controls.in_flight,
            slots=controls.concurrency.slots,
            throttled=controls.throttled,
            requests=controls.requests,
            seconds_closed=pacer.seconds_closed(now),
            gate=gate.state,
            halt_reason=gate.reason,
            halted_since=gate.halted_since,
            next_probe_in_seconds=(gate.next_probe_in_seconds(now) if gate.state is GateState.HALTED else None),
            closed_for_seconds=pacer.closed_for_seconds(now),
        )

    def _probe(self, completion_id: str, now: float) -> Permit:
        if self._controls.start_probe(now):
            self._invited_until = now
            return self._permit(completion_id, now, probe=True)
        gate = self._controls.gate
        wait_seconds = max(gate.retry_in_seconds(now), self._controls.pacer.closed_for_seconds(now))
        raise Halted(gate.reason or "", wait_seconds)

    def _permit(self, completion_id: str, now: float, *, probe: bool = False) -> Permit:
        return Permit(completion_id, now, probe, self._controls, self._line, self._clock)
