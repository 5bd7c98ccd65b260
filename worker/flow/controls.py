"""Gate, concurrency and pacer as one: whether the next request may start, and what its end teaches each of them."""

import math
from collections.abc import Callable
from typing import assert_never

from worker.flow.budget import RetryBudget
from worker.flow.concurrency import Concurrency
from worker.flow.course import Course
from worker.flow.ended import End, Ended, Limits
from worker.flow.gate import Gate, GateEvent, GateState
from worker.flow.pacer import Pacer
from worker.flow.permit import Permit

_CAUTIOUS_SECONDS = 1.0  # between two requests while everybody meets the same refusal
_IDLE_SECONDS = 2.0  # after which nothing is known of what an endpoint without a known limit can take


class Controls:
    """Knows the rules; reads no clock and waits for nothing. Times are in seconds.

    Args:
        jitter_seconds: draws what is added to a delay of the service.
        on_transition: is told when the gate halts or opens.
        on_refused: is told when the service asks to wait, for how many seconds, and by which answer.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        concurrency: Concurrency,
        pacer: Pacer,
        jitter_seconds: Callable[[], float],
        on_transition: Callable[[GateEvent], None],
        on_refused: Callable[[float, Ended], None],
    ) -> None:
        self.gate = gate
        self.concurrency = concurrency
        self.pacer = pacer
        self.budget = RetryBudget()
        self.paused = False  # somebody has said that nothing is to start
        self.in_flight = 0
        self.urgent_in_flight = 0  # of those
        self.requests = 0
        self.throttled = 0
        self.changes = 0  # goes up whenever those who wait should think again
        self._jitter_seconds = jitter_seconds
        self._on_transition = on_transition
        self._on_refused = on_refused
        self.throttled_until = -math.inf  # when the last wait ends that a 429 asked for
        self._ended_at = -math.inf
        self._cautious_until = -math.inf
        # Whose the refusals since the last of another completion are, and what the pacer knew before them.
        self._refused: tuple[str, Course | None] = ("", None)

    def passable(self, now: float) -> bool:
        """Whether neither a pause, nor the gate, nor a ``Retry-After`` stops everybody."""
        return self.gate.is_open and not self.paused and not self.pacer.closed_for_seconds(now)

    def start(self, now: float) -> bool:
        """Count a request that starts now, if one may."""
        if self.paused or not self.gate.is_open:
            return False
        if self.in_flight == 0 and now - self._ended_at > _IDLE_SECONDS and self.pacer.limit_per_second is None:
            self.concurrency.slow_start(now)
        if self.gate.is_cautious and now < self._cautious_until:
            return False
        if self.in_flight >= self.concurrency.slots or not self.pacer.take(now):
            return False
        if self.gate.is_cautious:
            self._cautious_until = now + _CAUTIOUS_SECONDS
        self.in_flight += 1
        self.requests += 1
        return True

    def wait_seconds(self, now: float) -> float:
        """Seconds until `start` may succeed; infinity when only the end of a request can help."""
        if self.paused or not self.gate.is_open:
            return math.inf
        return max(
            self.concurrency.seconds_until_growth(now, self.in_flight),
            self.pacer.wait_seconds(now),
            self._cautious_until - now if self.gate.is_cautious else 0.0,
        )

    def give_back(self, started_at: float, *, urgent: bool = False) -> None:
        """Undo `start`: the request was never sent."""
        self.requests -= 1
        self.in_flight -= 1
        self.urgent_in_flight -= urgent
        self.pacer.give_back(started_at)

    def start_probe(self, now: float) -> bool:
        """Count a request of the work that is the probe of a halted gate, if one may start now."""
        if self.paused or self.gate.state is not GateState.HALF_OPEN or self.pacer.closed_for_seconds(now) > 0.0:
            return False
        self.pacer.take_unpaced(now)
        self.in_flight += 1
        self.requests += 1
        return True

    def probe_in_seconds(self, now: float) -> float:
        """Seconds until a halted gate lets a probe through; infinity while one is under way.

        There is always a slot for it: that of the request whose end halted the gate.
        """
        return max(self.gate.next_probe_in_seconds(now), self.pacer.closed_for_seconds(now))

    def ended(self, now: float, permit: Permit, ended: Ended) -> None:
        """Learn from the end of a request, and free its slot."""
        match ended.end:
            case End.SUCCEEDED | End.ANSWERED | End.ABSENT | End.REJECTED:
                self._answered(now, permit, ended.limits)
            case End.THROTTLED:
                self.throttled += 1
                if ended.alone:
                    self._acquit(now, permit.completion_id)
                else:
                    self._close(now, permit, ended)
            case End.FAILED:
                self.concurrency.failed(now - permit.sent_at)
                if ended.delay_seconds is not None and not ended.guilty:
                    self._pause(now, ended, ended.delay_seconds)
            case End.DROPPED:
                pass
            case _:
                assert_never(ended.end)
        self.in_flight -= 1
        self.urgent_in_flight -= permit.is_urgent
        self._ended_at = now
        event = self.gate.ended(now, permit, ended, closed_seconds=self.pacer.closed_for_seconds(now))
        if event and event.kind == "resumed":
            self.concurrency.slow_start(now)
        self.changed(event, probe=permit.is_probe)

    def _answered(self, now: float, permit: Permit, limits: Limits | None) -> None:
        """An answer that is no refusal, whatever it says about the change."""
        if self.pacer.accepted(now, permit.sent_at):
            self.changes += 1
        self.budget.succeeded()
        if limits is not None and limits.limit is not None:
            self.pacer.announce(now, limits.limit, limits.remaining, limits.reset_seconds)
        self.concurrency.answered(
            now, now - permit.sent_at, per_second=self.pacer.aim_per_second, in_flight=self.in_flight
        )

    def others_refused(self, now: float, delay_seconds: float) -> None:
        """Another worker on the same quota was refused."""
        self.pacer.others_refused(now, delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self.changes += 1

    def others_paused(self, now: float, delay_seconds: float) -> None:
        """A service in trouble asked another worker to wait."""
        self.pacer.pause(now, delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self.changes += 1

    def _pause(self, now: float, ended: Ended, delay_seconds: float) -> None:
        """A service in trouble asked everybody to wait: that says nothing about the rate."""
        self.pacer.pause(now, delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self.changes += 1
        self._on_refused(self.pacer.asked_for_seconds(now), ended)

    def _close(self, now: float, permit: Permit, ended: Ended) -> None:
        """The service asked everybody to wait."""
        if self._refused[0] != permit.completion_id:
            self._refused = permit.completion_id, self.pacer.course
        self.pacer.refused(
            now,
            sent_at=permit.sent_at,
            delay_seconds=ended.delay_seconds,
            jitter_seconds=self._jitter_seconds(),
            slow_down=ended.slow_down,
        )
        self.changes += 1
        asked_seconds = self.pacer.asked_for_seconds(now)
        if asked_seconds:
            self.throttled_until = now + self.pacer.closed_for_seconds(now)
            self._on_refused(asked_seconds, ended)

    def _acquit(self, now: float, completion_id: str) -> None:
        """One completion is refused, whatever the rate: where the last refusals were all its own, forget them."""
        refused, course = self._refused
        if refused == completion_id:
            self._refused = ("", None)
            self.pacer.resume(now, course)

    def changed(self, event: GateEvent | None, *, probe: bool = False) -> None:
        """Have those who wait think again, and tell of a transition."""
        if event or probe:
            self.changes += 1
        if event:
            self._on_transition(event)
