"""The curve that the rate follows between two refusals: back to the limit that was found, a rest, then beyond.

CUBIC (RFC 9438), on a rate instead of a window: ``limit * (1 + 0.1 * ((t - K) / K) ** 3)``, K = 20 s. Two things
are different. Where 20 s are few requests, a refusal weighs more, and the way back is longer and shallower (simulated
at 60 a minute: goodput 0.98 instead of 0.83, 0.7 % of the requests refused instead of 2.6 %). And while the limit is
hardly known, after a refusal that came soon after the last one, it is shorter.
"""

_GROWTH = 0.1
_SMALLEST_DECREASE = 0.01
_K_SECONDS = 20.0
_K_REQUESTS = 180.0
_K_LONGEST_SECONDS = 300.0
_UNSETTLED_K_SECONDS = 8.0
_UNSETTLED_K_REQUESTS = 10.0


class Cubic:
    """A rate as a function of the time that it was made use of.

    Args:
        limit_per_second: the goodput at the last refusal.
        settled: whether that is known well.
    """

    __slots__ = ("_decrease", "_fall_seconds", "_rise_seconds", "_seconds", "limit_per_second", "settled")

    def __init__(self, limit_per_second: float, *, settled: bool) -> None:
        self.limit_per_second = limit_per_second
        self.settled = settled
        self._seconds = 0.0
        if settled:
            self._rise_seconds = _K_SECONDS
            self._fall_seconds = min(_K_LONGEST_SECONDS, max(_K_SECONDS, _K_REQUESTS / limit_per_second))
        else:
            self._rise_seconds = _UNSETTLED_K_SECONDS
            requests_seconds = _UNSETTLED_K_REQUESTS / limit_per_second
            self._fall_seconds = min(_K_SECONDS, max(_UNSETTLED_K_SECONDS, requests_seconds))
        self._decrease = max(_SMALLEST_DECREASE, _GROWTH * self._rise_seconds / self._fall_seconds)

    def per_second(self) -> float:
        """The rate now."""
        past_rest = self._seconds - self._fall_seconds
        if past_rest < 0.0:
            return self.limit_per_second * (1.0 + self._decrease * (past_rest / self._fall_seconds) ** 3)
        return self.limit_per_second * (1.0 + _GROWTH * (past_rest / self._rise_seconds) ** 3)

    def advance(self, seconds: float) -> None:
        """Go on along the curve."""
        self._seconds += seconds

    def scale(self, factor: float) -> None:
        """The limit is known to have changed by this factor: be at the new one at once, and rest there."""
        self.limit_per_second *= factor
        self._seconds = self._fall_seconds

    def again(self) -> "Cubic":
        """The curve after a refusal that had another cause than the rate."""
        return Cubic(self.limit_per_second, settled=self.settled)

    def set_back(self, per_second: float) -> "Cubic":
        """The curve after a refusal that says little about the limit: from a little below this back to the old one."""
        curve = Cubic(self.limit_per_second, settled=False)
        curve._rise_seconds = _K_SECONDS
        curve._decrease = 1.0 - (1.0 - _GROWTH) * min(1.0, per_second / self.limit_per_second)
        return curve
