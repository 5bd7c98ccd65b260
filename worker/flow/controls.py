"""Gate, concurrency and pacer as one: whether the next request may start, and what its end teaches each of them."""

import math
from collections.abc import Callable

from worker.flow.budget import RetryBudget
from worker.flow.concurrency import Concurrency
from worker.flow.gate import Gate, GateEvent
from worker.flow.pacer import Pacer

_IDLE_SECONDS = 2.0  # after which nothing is known of what an endpoint without a known limit can take


class Controls:
    """Knows the rules; reads no clock and waits for nothing. Times are in seconds.

    Args:
        jitter_seconds: draws what is added to a delay of the service.
        on_transition: is told when the gate halts or opens.
        on_refused: is told when the service asks to wait, and for how many seconds.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        concurrency: Concurrency,
        pacer: Pacer,
        jitter_seconds: Callable[[], float],
        on_transition: Callable[[GateEvent], None],
        on_refused: Callable[[float], None],
    ) -> None:
        self.gate = gate
        self.concurrency = concurrency
        self.pacer = pacer
        self.budget = RetryBudget()
        self.in_flight = 0
        self.requests = 0
        self.throttled = 0
        self.changes = 0  # goes up whenever those who wait should think again
        self._jitter_seconds = jitter_seconds
        self._on_transition = on_transition
        self._on_refused = on_refused
        self._ended_at = -math.inf

    def passable(self, now: float) -> bool:
        """Whether neither the gate nor a ``Retry-After`` stops everybody."""
        return self.gate.is_open and not self.pacer.closed_for_seconds(now)

    def start(self, now: float) -> bool:
        """Count a request that starts now, if one may."""
        if not self.gate.is_open:
            return False
        if self.in_flight == 0 and now - self._ended_at > _IDLE_SECONDS and self.pacer.limit_found_per_second is None:
            self.concurrency.slow_start(now)
        if self.in_flight >= self.concurrency.slots or not self.pacer.take(now):
            return False
        self.in_flight += 1
        self.requests += 1
        return True

    def wait_seconds(self, now: float) -> float:
        """Seconds until `start` may succeed; infinity when only the end of a request can help."""
        if not self.gate.is_open:
            return math.inf
        return max(
            self.concurrency.seconds_until_growth(now, self.in_flight),
            self.pacer.wait_seconds(now),
        )

    def give_back(self, started_at: float) -> None:
        """Undo `start`: the request was never sent."""
        self.requests -= 1
        self.in_flight -= 1
        self.pacer.give_back(started_at)

    def start_probe(self, now: float) -> bool:
        """Count a request that starts now as the probe of a halted gate, if one may."""
        if self.probe_in_seconds(now) > 0.0 or not self.gate.take_probe(now):
            return False
        self.pacer.take_unpaced(now)
        self.in_flight += 1
        self.requests += 1
        self.changes += 1
        return True

    def probe_in_seconds(self, now: float) -> float:
        """Seconds until a halted gate lets a probe through; infinity while one is under way.

        There is always a slot for it: that of the request whose end halted the gate.
        """
        return max(self.gate.next_probe_in_seconds(now), self.pacer.closed_for_seconds(now))

    def accepted(
        self,
        now: float,
        *,
        sent_at: float,
        probe: bool,
        limit: float | None,
        remaining: float | None,
        reset_seconds: float | None,
    ) -> None:
        """An answer that is no refusal, whatever it says about the change."""
        self.pacer.accepted()
        self.budget.succeeded()
        if limit is not None:
            self.pacer.announce(now, limit, remaining, reset_seconds)
        self.concurrency.answered(now, now - sent_at, per_second=self.pacer.aim_per_second, in_flight=self.in_flight)
        self._end(now)
        event = self.gate.succeeded(now, probe=probe)
        if event:
            self.concurrency.slow_start(now)
            self._changed(event)

    def refused(self, now: float, *, sent_at: float, probe: bool, delay_seconds: float | None, slow_down: bool) -> None:
        """A 429 that is about the rate."""
        self._end(now)
        self.throttled += 1
        self._close(now, sent_at=sent_at, delay_seconds=delay_seconds, slow_down=slow_down)
        self.gate.throttled(now, self.pacer.closed_for_seconds(now), probe=probe)

    def failed(
        self, now: float, completion_id: str, *, sent_at: float, probe: bool, delay_seconds: float | None
    ) -> None:
        """No complete answer, or a 5xx; with a delay it is a refusal as well."""
        self.concurrency.failed(now - sent_at)
        self._end(now)
        if delay_seconds is not None:
            self._close(now, sent_at=sent_at, delay_seconds=delay_seconds, slow_down=False)
        self._changed(self.gate.failed(now, completion_id, sent_at=sent_at, probe=probe), probe=probe)

    def halted(self, now: float, reason: str, *, sent_at: float, probe: bool) -> None:
        """The service refuses everybody."""
        self._end(now)
        self._changed(self.gate.halt(now, reason, sent_at=sent_at, probe=probe), probe=probe)

    def others_refused(self, now: float, delay_seconds: float) -> None:
        """Another worker on the same quota was refused."""
        self.pacer.others_refused(now, delay_seconds=delay_seconds, jitter_seconds=self._jitter_seconds())
        self.changes += 1

    def others_halted(self, now: float, reason: str, *, halted_at: float) -> None:
        """Another worker was halted."""
        self._changed(self.gate.halt(now, reason, sent_at=halted_at, probe=False))

    def others_resumed(self, now: float) -> None:
        """Another worker goes on after a halt."""
        self.gate.probe_now(now)
        self.changes += 1

    def dropped(self, now: float, *, probe: bool) -> None:
        """The request was cancelled; nothing is learnt."""
        self._end(now)
        self.gate.dropped(probe=probe)
        self._changed(None, probe=probe)

    def _end(self, now: float) -> None:
        self.in_flight -= 1
        self._ended_at = now

    def _close(self, now: float, *, sent_at: float, delay_seconds: float | None, slow_down: bool) -> None:
        far_off = self.pacer.refused(
            now,
            sent_at=sent_at,
            delay_seconds=delay_seconds,
            jitter_seconds=self._jitter_seconds(),
            slow_down=slow_down,
        )
        if far_off:
            self.concurrency.slow_start(now)
        self.changes += 1
        self._on_refused(self.pacer.closed_for_seconds(now))

    def _changed(self, event: GateEvent | None, *, probe: bool = False) -> None:
        if event or probe:
            self.changes += 1
        if event:
            self._on_transition(event)
