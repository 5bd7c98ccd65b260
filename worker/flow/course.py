"""The course that the rate takes between two refusals: it keeps the limit that was found, or seeks one.

To keep a limit, the rate follows CUBIC (RFC 9438), which has a window where we have a rate: back to the limit on
``limit * (1 - depth * ((K - t) / K) ** 3)``, then beyond it. At a low limit K is longer and the depth is less; where a
refusal costs much time, K is longer. To seek a limit, the rate doubles again and again, until the next refusal.
"""

import math

from worker.flow.tuning import TUNING


class Course:
    """A rate as a function of time, of which only the time counts in which the rate was used.

    Args:
        limit_per_second: the limit as far as it is known.
        seeks: how many searches in a row this is; 0 where the limit is known and kept.
        cost_seconds: how long requests wait after a refusal.
    """

    __slots__ = ("_depth", "_rest_seconds", "_seconds", "limit_per_second", "seeks")

    def __init__(self, limit_per_second: float, *, seeks: int = 0, cost_seconds: float = 0.0) -> None:
        self.limit_per_second = limit_per_second
        self.seeks = seeks
        self._seconds = 0.0
        if seeks:
            self._depth = TUNING.seek_below
            self._rest_seconds = max(TUNING.doubling_seconds, TUNING.doubling_requests / limit_per_second)
            return
        rest_seconds = TUNING.rest_seconds * math.pow(max(1.0, TUNING.rest_below / limit_per_second), TUNING.rest_power)
        costly_seconds = TUNING.rest_costs * cost_seconds
        self._rest_seconds = min(TUNING.rest_longest_seconds, max(rest_seconds, costly_seconds))
        self._depth = max(TUNING.least_depth, TUNING.depth * TUNING.rest_seconds / rest_seconds)

    def per_second(self) -> float:
        """The rate now."""
        limit, seconds = self.limit_per_second, self._seconds
        if self.seeks:
            return limit * (1.0 - self._depth) * math.pow(2.0, min(seconds / self._rest_seconds, 60.0))
        beyond = seconds - self._rest_seconds
        if beyond < 0.0:
            return limit * (1.0 + self._depth * (beyond / self._rest_seconds) ** 3)
        return limit * (1.0 + TUNING.growth * (beyond / TUNING.rest_seconds) ** 3)

    @property
    def is_early(self) -> bool:
        """Whether the rate is below the limit that was found, or none is found yet."""
        return bool(self.seeks) or self._seconds < self._rest_seconds

    def reach_limit(self) -> None:
        """Go on from the limit, if the rate is still below it."""
        if not self.seeks:
            self._seconds = max(self._seconds, self._rest_seconds)

    def advance(self, seconds: float) -> None:
        """The rate was used for so long."""
        self._seconds += seconds
