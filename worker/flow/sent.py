"""When the latest requests started that were not refused: from these times goodputs are counted."""

from bisect import bisect_left, bisect_right

_KEPT = 32_768  # starts: three minutes at 10,000 a minute


class Sent:
    """The exact times of the latest starts, in seconds. Counts of whole seconds would hide a burst within one.

    `workers` meet a limit together: of a request that was refused, each counts its part.
    """

    __slots__ = ("_times", "workers")

    def __init__(self) -> None:
        self._times: list[float] = []
        self.workers = 1

    def add(self, at: float) -> None:
        """A request starts, later than all before."""
        self._times.append(at)
        if len(self._times) > _KEPT:
            del self._times[: _KEPT // 2]

    def remove(self, at: float) -> None:
        """The request that started then was refused, or never sent."""
        place = bisect_right(self._times, at) - 1
        if place >= 0 and self._times[place] == at:
            del self._times[place]

    def count(self, since: float, until: float) -> int:
        """How many started from `since` to `until`."""
        return max(0, bisect_right(self._times, until) - bisect_left(self._times, since))

    def per_second(self, since: float, until: float) -> float:
        """The goodput of a span that ends with a refusal: the next request would have been one too many."""
        return (self.count(since, until) + 1.0 / self.workers) / max(until - since, 1e-3)

    def least_limit(self, since: float, until: float, saved_seconds: float) -> float:
        """The least limit of a service that saves up so much, and refused the next request at the end.

        In no span of time does it give more than its limit allows in that time, and what it had saved up before. So
        the span in which most got through tells most; in others, a part of the limit went unused. Where less than one
        request is saved up in that time, it is one.
        """
        times = self._times
        end = bisect_right(times, until)
        found = 0.0
        for first in range(bisect_left(times, since), end):
            seconds, passed = max(until - times[first], 1e-3), end - first
            found = max(found, min(passed / seconds, (passed + 0.5 / self.workers) / (seconds + saved_seconds)))
        return found
