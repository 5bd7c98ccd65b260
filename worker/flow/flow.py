"""The face of flow control: may anything run, how many at once, and when is the next?"""

import math
import random as random_module
from collections.abc import Callable, Collection
from typing import assert_never

from worker.flow.concurrency import Concurrency
from worker.flow.ended import End, Ended, Operation
from worker.flow.gate import Cause, Gate, GateEvent, GateState
from worker.flow.line import Line
from worker.flow.pacer import Pacer
from worker.flow.permit import Permit
from worker.flow.quota import GrantedQuota
from worker.flow.state import Closed, FlowState, Halted, Paused

# Failures must not multiply the load on a service in trouble: a retry costs a token, an answer brings a tenth back.
# As in gRPC's retry throttling (proposal A6), with its suggested ratio.
_RETRIES = 10.0
_RETRIES_BACK = 0.1
_SNOOZED_SECONDS = 3.0  # after a delay, until all changes that waited for its end are claimed again
_JITTER_SECONDS = (0.05, 0.25)  # on top of each delay, so that replicas do not all come back at once
_CAUTIOUS_SECONDS = 1.0  # between two requests while all completions meet the same


def _ignore(*_: object) -> None:
    pass


class Flow:
    """Finds and keeps the service's limits, known or hidden, and halts when the service refuses all requests.

    Use it from one event loop. Only `admit` and `ready` wait.

    Args:
        max_concurrency: requests at once, at most.
        requests_per_minute: a cap to keep, whatever the service allows.
        patience_seconds: the longest ``Retry-After`` for which claims are kept and not given back.
        on_short: where several workers share that cap: called when this one needs a grant; see `grant`.
        clock: seconds, never going back.
        random: for the jitter.
        on_transition: called when the gate halts, when the reason of the halt changes, and when it opens again.
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
        self._clock = clock
        self._dice = random or random_module.Random()  # noqa: S311 -- jitter, no secret
        self._patience_seconds = patience_seconds
        self._on_transition = on_transition
        self._on_refused = on_refused
        self._quota = None if on_short is None or requests_per_minute is None else GrantedQuota(on_short)
        self.gate = Gate(now)
        self._retries = _RETRIES
        self._concurrency = Concurrency(max_concurrency)
        self._pacer = Pacer(now, requests_per_minute=requests_per_minute, quota=self._quota)
        self._line = Line(
            start=self._started_at,
            wait_seconds=self.wait_seconds,
            has_room_for_urgent=lambda: self._urgent_in_flight < (self._concurrency.slots + 1) // 2,
            give_back=self._give_back,
        )
        self.is_paused = False  # a person has said that nothing is to start
        self.in_flight = 0
        self._urgent_in_flight = 0  # a part of `in_flight`
        self._requests = 0
        self._throttled = 0
        self._throttled_until = -math.inf  # the end of the latest delay that a 429 asked for
        self._cautious_until = -math.inf
        self._on_end = self._ended  # bound here once, which is cheaper than for each request

    def __repr__(self) -> str:
        return f"<Flow [{self.gate.state}, {self.in_flight} in flight, {self.waiting} waiting]>"

    def begin_at(self, limit_per_second: float | None, age_seconds: float = 0.0) -> None:
        """Start a little below the limit that an earlier run has found; to be called before the first request.

        An old limit is sought again, since it may have changed. What is no positive number changes nothing.
        """
        if limit_per_second is not None and 0.0 < limit_per_second < math.inf:
            self._pacer.begin_at(self._clock(), limit_per_second, age_seconds=age_seconds)

    def start(self, completion_id: str, operation: Operation, *, urgent: bool = False) -> Permit | None:
        """The permit of a request that may start at once; None when it has to wait in `admit`."""
        line = self._line
        started_at = None if line.waiting or line.urgent else self._started_at(urgent)
        if started_at is None:
            return None
        return Permit(completion_id, operation, started_at, self._on_end, is_urgent=urgent)

    async def admit(
        self, completion_id: str, operation: Operation, *, probe: bool = False, urgent: bool = False
    ) -> Permit:
        """Wait until a request may start: gate, then slot, then pace.

        Args:
            completion_id: the completion that is asked about.
            operation: which kind of call it is.
            probe: whether it is part of the work that is the probe of a halted gate; see `take_probe`.
            urgent: whether it goes before others that wait; see `Line`.

        Raises:
            Paused: nothing is to start, now or later while it waits.
            Halted: the gate is halted, or halts while it waits.
            Closed: the service asks for a longer delay than there is patience for.
        """
        while True:
            now = self._clock()
            if self.is_paused:
                raise Paused
            if not self.gate.is_open:
                permit = self.start_probe(completion_id, operation) if probe else None
                if permit is None:
                    raise Halted(self.gate.cause.reason if self.gate.cause else "")
                return permit
            closed_seconds = self._pacer.closed_for_seconds(now)
            if closed_seconds > self._patience_seconds:
                raise Closed(closed_seconds)
            started_at = await self._line.turn(urgent=urgent)
            if started_at is None:
                continue
            if self._is_passable(self._clock()):
                return Permit(completion_id, operation, started_at, self._on_end, is_urgent=urgent)
            # Its turn came, but then all was stopped before this task went on.
            self._give_back(started_at, urgent)

    async def ready(self) -> int | None:
        """Wait until claiming makes sense.

        Returns:
            None when any number of claims can be worked on; 1 when the halted gate wants a claim for a probe, or when
            all completions of late met the same.
        """
        while True:
            closed_seconds = self._pacer.closed_for_seconds(self._clock())
            if self.is_paused:
                wait_seconds = math.inf
            elif self.gate.is_open:
                wait_seconds = closed_seconds - self._patience_seconds
            else:
                wait_seconds = closed_seconds if self.gate.wants_others else self.next_probe_in_seconds()
            if wait_seconds <= 0.0:
                return None if self.gate.is_open and not self.gate.is_cautious else 1
            await self._line.change(wait_seconds)

    def wait_seconds(self) -> float:
        """Seconds until `start` may succeed; infinity when only the end of a request can help."""
        if self.in_flight >= self._concurrency.slots or self.is_paused or not self.gate.is_open:
            return math.inf
        now = self._clock()
        cautious_seconds = self._cautious_until - now if self.gate.is_cautious else 0.0
        return max(self._pacer.wait_seconds(now), cautious_seconds)

    def starts_within(self, seconds: float) -> int | None:
        """How many requests may start within so many seconds, one at least; None while no limit is known."""
        return self._pacer.starts_within(self._clock(), seconds)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._line)

    def pause(self, *, paused: bool) -> None:
        """Let nothing start, no probe either, and send back those that wait; or let all go on."""
        if paused is not self.is_paused:
            self.is_paused = paused
            self._changed()

    def take_probe(self, completion_id: str) -> bool:
        """Whether the completion just claimed is the probe of the halted gate; if so, call `probe_ended` after it."""
        now = self._clock()
        return not self._pacer.closed_for_seconds(now) and self.gate.take_probe(now, completion_id)

    def start_probe(self, completion_id: str, operation: Operation) -> Permit | None:
        """The permit of a request of the probe of a halted gate; None when none may start now."""
        now = self._clock()
        if self.is_paused or self.gate.state is not GateState.HALF_OPEN or self._pacer.closed_for_seconds(now) > 0.0:
            return None
        self._pacer.take_unpaced(now)
        self.in_flight += 1
        self._requests += 1
        return Permit(completion_id, operation, now, self._on_end, is_probe=True)

    def next_probe_in_seconds(self) -> float:
        """Seconds until a halted gate lets a probe through; infinity while one is under way.

        A probe needs no free slot: it takes that of the request whose end halted the gate.
        """
        now = self._clock()
        return max(self.gate.next_probe_in_seconds(now), self._pacer.closed_for_seconds(now))

    def probe_ended(self) -> None:
        """The work that was the probe is over, in whatever way."""
        self.gate.probe_ended(self._clock())
        self._changed()

    def nothing_else(self, in_hand: Collection[str]) -> None:
        """Nothing more can be claimed: halt if all that is in hand has failed, since no other could get through.

        Args:
            in_hand: the completions that are worked on, and those that were given back after a failure.
        """
        now = self._clock()
        if self._throttled_until + _SNOOZED_SECONDS < now:  # else there are others, which wait for a delay to end
            event = self.gate.nothing_else(now, in_hand)
            if event:
                self._changed(event)

    def fault(self, completion_id: str, word: Ended, *, probe: bool = False) -> None:
        """An exception of ours ended the work on a completion.

        Args:
            probe: whether this work was the probe of a halted gate.
        """
        self._changed(self.gate.fault(self._clock(), completion_id, word, is_probe=probe))

    def alike(self) -> tuple[Cause, float] | None:
        """What twenty completions in a row met, and for how many seconds; None as long as they do not."""
        return self.gate.alike(self._clock())

    def new_key(self) -> None:
        """Another key is used from here on."""
        self.gate.new_key(self._clock())
        self._changed()

    def may_retry(self) -> bool:
        """Spend a token of the retry budget; False when none is left, so that the retry has to come from the queue."""
        has_token = self._retries >= 1.0 - 1e-9  # ten tenths make a whole one
        self._retries -= has_token
        return has_token

    def grant(self, requests: int, *, wait_seconds: float, interval_seconds: float) -> None:
        """Take in what the store grants of the quota that is shared with other workers.

        Args:
            wait_seconds: until the first request may start.
            interval_seconds: from one to the next.
        """
        if self._quota is not None:
            self._quota.grant(self._clock() + wait_seconds, requests, interval_seconds)
            self._line.move()

    def others_at_work(self, others: int) -> None:
        """So many other workers send requests now: all of them together search for a limit, and meet it."""
        self._pacer.share(others + 1)

    def others_refused(self, delay_seconds: float) -> None:
        """Another worker met the limit: wait as long as it does, and aim lower."""
        self._pacer.others_refused(self._clock(), delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self._changed()

    def others_paused(self, delay_seconds: float) -> None:
        """A service in trouble asked another worker to wait: wait as long, and leave the rate as it is."""
        self._pacer.pause(self._clock(), delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self._changed()

    def others_halted(self, reason: str, age_seconds: float) -> None:
        """Another worker was halted so long ago: the next failure for that reason halts this one."""
        self.gate.told(reason, halted_at=self._clock() - age_seconds)

    def others_succeeded(self, operation: Operation, age_seconds: float) -> None:
        """A request of this kind got through at another worker so long ago."""
        self.gate.others_got_through_elsewhere(operation, self._clock() - max(0.0, age_seconds))

    def others_resumed(self) -> None:
        """Another worker goes on: if this one is halted, its own probe is due now."""
        self.gate.probe_now(self._clock())
        self._changed()

    def snapshot(self) -> FlowState:
        """The state at this moment."""
        now = self._clock()
        gate, pacer = self.gate, self._pacer
        return FlowState(
            rate_per_second=pacer.rate_per_second(now),
            rate_limit_per_second=pacer.limit_per_second,
            in_flight=self.in_flight,
            slots=self._concurrency.slots,
            throttled=self._throttled,
            requests=self._requests,
            seconds_closed=pacer.seconds_closed(now),
            gate=gate.state,
            cause=gate.cause,
            slowed_by=alike[0] if (alike := gate.alike(now)) else None,
            halted_for_seconds=gate.halted_seconds(now),
            next_probe_in_seconds=self.next_probe_in_seconds() if gate.state is GateState.HALTED else None,
            closed_for_seconds=pacer.closed_for_seconds(now),
            got_through_seconds_ago=gate.got_through_seconds_ago(now),
        )

    def _jitter_seconds(self) -> float:
        return self._dice.uniform(*_JITTER_SECONDS)

    def _is_passable(self, now: float) -> bool:
        """Whether neither a pause, nor the gate, nor a ``Retry-After`` stops everybody."""
        return self.gate.is_open and not self.is_paused and not self._pacer.closed_for_seconds(now)

    def _started_at(self, urgent: bool) -> float | None:  # noqa: FBT001 -- called through the line
        """Count a request that starts now, if one may."""
        if self.in_flight >= self._concurrency.slots or self.is_paused or not self.gate.is_open:
            return None
        now = self._clock()
        is_cautious = self.gate.is_cautious
        if (is_cautious and now < self._cautious_until) or not self._pacer.take(now):
            return None
        if is_cautious:
            self._cautious_until = now + _CAUTIOUS_SECONDS
        self.in_flight += 1
        self._urgent_in_flight += urgent
        self._requests += 1
        return now

    def _give_back(self, started_at: float, urgent: bool) -> None:  # noqa: FBT001 -- called through the line
        """Undo a start: the request was never sent."""
        self._requests -= 1
        self.in_flight -= 1
        self._urgent_in_flight -= urgent
        self._pacer.give_back(started_at)

    def _ended(self, permit: Permit, ended: Ended) -> None:
        """Learn from the end of a request, and free its slot."""
        now = self._clock()
        is_changed = permit.is_probe
        match ended.end:
            case End.SUCCEEDED | End.ANSWERED | End.ABSENT | End.REJECTED:
                self._answered(now, permit, ended)
            case End.THROTTLED:
                self._throttled += 1
                is_changed = True
                if not ended.alone:
                    self._refuse(now, permit, ended)
            case End.FAILED:
                self._concurrency.ended(now - permit.sent_at, per_second=self._pacer.per_second)
                if ended.delay_seconds is not None and not ended.guilty:  # a service in trouble, and not a rate limit
                    self._pacer.pause(now, delay_seconds=ended.delay_seconds, jitter_seconds=self._jitter_seconds())
                    self._on_refused(self._pacer.asked_for_seconds(now), ended)
                    is_changed = True
            case End.DROPPED:
                pass
            case _:
                assert_never(ended.end)
        self.in_flight -= 1
        self._urgent_in_flight -= permit.is_urgent
        if self.in_flight == 0:
            self._pacer.none_under_way(now)
        event = self.gate.ended(now, permit, ended)
        if event is None and not is_changed:
            self._line.move()
            return
        self._changed(event)

    def _answered(self, now: float, permit: Permit, ended: Ended) -> None:
        """Learn from an answer that is no refusal."""
        self._pacer.accepted(now, permit.sent_at)
        if self._retries < _RETRIES:
            self._retries += _RETRIES_BACK
        limits = ended.limits
        if limits is not None and limits.limit is not None:
            self._pacer.announce(now, limits.limit, limits.remaining, limits.reset_seconds)
        self._concurrency.ended(now - permit.sent_at, per_second=self._pacer.per_second)

    def _refuse(self, now: float, permit: Permit, ended: Ended) -> None:
        """Learn from a 429 that is about the rate."""
        pacer = self._pacer
        pacer.refused(
            now,
            sent_at=permit.sent_at,
            delay_seconds=ended.delay_seconds,
            jitter_seconds=self._jitter_seconds(),
            slow_down=ended.slow_down,
        )
        asked_seconds = pacer.asked_for_seconds(now)
        if asked_seconds:
            self._throttled_until = now + pacer.closed_for_seconds(now)
            self._on_refused(asked_seconds, ended)

    def _changed(self, event: GateEvent | None = None) -> None:
        """Let all that wait look again, and tell of a transition."""
        if event:
            self._on_transition(event)
        self._line.wake()
        if not self._is_passable(self._clock()):
            self._line.send_back()
        self._line.move()
