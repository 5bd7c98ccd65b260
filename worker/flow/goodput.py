"""What got through, per second: the measure from which a hidden limit is told.

From one refusal to the next the service gave exactly what it had, whatever it had saved up before: at both ends of such
a cycle nothing was left. So requests sent in a cycle and not refused, over its length, are the limit.
"""

from worker.flow.meter import Meter

_RECENT_SECONDS = 2.0
_SHORTEST_SECONDS = 1.0
LONG_DELAY_SECONDS = 2.0  # beyond this a delay is the rest of a window, not the rounding of a header
_LONG_CLOSED_SECONDS = 5.0  # the same, with jitter and the time that requests are under way
_LONGEST_WINDOW_SECONDS = 120.0


class Goodput:
    """Counts requests sent and not refused, by the time at which they were sent.

    Args:
        now: the time, in seconds.
    """

    __slots__ = ("_cycle_from", "_meter", "_passed", "sent_in_cycle")

    def __init__(self, now: float) -> None:
        self._meter = Meter()
        self._cycle_from = now
        self._passed = 0
        self.sent_in_cycle = 0

    def sent(self, now: float) -> None:
        """A request starts."""
        self._meter.add(now)
        self._passed += 1
        self.sent_in_cycle += 1

    def never_sent(self, at: float) -> None:
        """The request that was to start then did not."""
        self._meter.add(at, -1)
        self._passed -= 1
        self.sent_in_cycle -= 1

    def refused(self, sent_at: float, *, in_cycle: bool) -> None:
        """A request was refused; `in_cycle` when it was sent after the cycle's beginning was known."""
        self._meter.add(sent_at, -1)
        if in_cycle:
            self._passed -= 1

    def recent_per_second(self, now: float) -> float:
        """Over the last two seconds."""
        return self._meter.count(now - _RECENT_SECONDS, now) / _RECENT_SECONDS

    def cycle_seconds(self, refused_sent_at: float) -> float:
        """From the refusal before to the one of a request sent then."""
        return refused_sent_at - self._cycle_from

    def begin_cycle(self, refused_sent_at: float) -> None:
        """That refusal was counted as an end; what comes is the next cycle."""
        self._cycle_from = refused_sent_at
        self._passed = 0
        self.sent_in_cycle = 0

    def search(self, now: float, refused_sent_at: float, delay_seconds: float) -> float:
        """The goodput of a search: its last two seconds, and what of the delay the service needs to give again."""
        span_seconds = self.cycle_seconds(refused_sent_at)
        if span_seconds < _RECENT_SECONDS:
            passed = self._passed_until(now, refused_sent_at)
        else:
            span_seconds = _RECENT_SECONDS
            passed = self._meter.count(refused_sent_at - span_seconds, refused_sent_at)
        return (passed + 1) / max(_SHORTEST_SECONDS, span_seconds + min(delay_seconds, LONG_DELAY_SECONDS))

    def cycle(self, now: float, refused_sent_at: float, longest_seconds: float) -> float:
        """The goodput of the cycle that ends with this refusal, or of its last `longest_seconds`."""
        cycle_seconds = self.cycle_seconds(refused_sent_at)
        if cycle_seconds < longest_seconds:
            return (self._passed_until(now, refused_sent_at) + 1) / max(_SHORTEST_SECONDS, cycle_seconds)
        passed = self._meter.count(refused_sent_at - longest_seconds, refused_sent_at)
        return (passed + 1) / longest_seconds

    def window(self, now: float, refused_sent_at: float, *, opened_at: float, delay_seconds: float) -> float | None:
        """Where this delay or the last one is long: the goodput from one opening to the next."""
        window_seconds = now + delay_seconds - opened_at
        long = delay_seconds > LONG_DELAY_SECONDS or opened_at - self._cycle_from > _LONG_CLOSED_SECONDS
        if not long or window_seconds > _LONGEST_WINDOW_SECONDS:
            return None
        return (self._passed_until(now, refused_sent_at) + 1) / window_seconds

    def _passed_until(self, now: float, refused_sent_at: float) -> int:
        """Without those that are under way, whose fate is open."""
        return self._passed - self._meter.count(refused_sent_at, now)
