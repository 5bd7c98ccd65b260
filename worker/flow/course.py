"""The course that the rate takes between two refusals: seeking the limit, or keeping the one that was found.

To keep it, the rate follows CUBIC (RFC 9438), on a rate instead of a window: back to the limit on
``limit * (1 - depth * ((K - t) / K) ** 3)``, then beyond. At a low limit, K is longer and the way back shallower; where
a refusal costs much, K is longer. To seek it, the rate doubles, until the next refusal.
"""

import math

from worker.flow.tuning import TUNING


class Course:
    """A rate as a function of the time that it was made use of.

    Args:
        limit_per_second: the limit as far as it is known.
        seeks: how often it was sought since it was known; 0 where it is.
        cost_seconds: what each refusal costs, whenever it comes.
        held_seconds: before the rate grows at all.
    """

    __slots__ = ("_depth", "_rest_seconds", "_seconds", "limit_per_second", "seeks")

    def __init__(
        self, limit_per_second: float, *, seeks: int = 0, cost_seconds: float = 0.0, held_seconds: float = 0.0
    ) -> None:
        self.limit_per_second = limit_per_second
        self.seeks = seeks
        self._seconds = -held_seconds
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
        limit, seconds = self.limit_per_second, max(0.0, self._seconds)
        if self.seeks:
            return limit * (1.0 - self._depth) * math.pow(2.0, min(seconds / self._rest_seconds, 60.0))
        beyond = seconds - self._rest_seconds
        if beyond < 0.0:
            return limit * (1.0 + self._depth * (beyond / self._rest_seconds) ** 3)
        return limit * (1.0 + TUNING.growth * (beyond / TUNING.rest_seconds) ** 3)

    @property
    def is_early(self) -> bool:
        """Whether the rate is below a limit that was found, or none is known as yet."""
        return bool(self.seeks) or self._seconds < self._rest_seconds

    @property
    def held_seconds(self) -> float:
        """For how much longer the rate does not grow."""
        return max(0.0, -self._seconds)

    def reach_limit(self) -> None:
        """Be at the limit, and go on from there."""
        if not self.seeks:
            self._seconds = max(self._seconds, self._rest_seconds)

    def advance(self, seconds: float) -> None:
        """Go on along the course."""
        self._seconds += seconds
