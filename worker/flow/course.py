"""How the rate changes between refusals, as functions of the time in which it was used."""

import math

from worker.flow.tuning import TUNING

_SHORTEST_LATENCY_SECONDS = 0.001


class Search:
    """The rate until a limit is known: it grows with time, ever more slowly, and with each answer."""

    __slots__ = ("_by_answers", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._by_answers = 0.0

    def per_second(self) -> float:
        """The rate now."""
        age = self._seconds
        by_time = TUNING.ramp * age / math.sqrt(age + TUNING.ramp_bend_seconds) + TUNING.ramp_steady * age
        return 1.0 + by_time + self._by_answers

    def advance(self, seconds: float) -> None:
        """The rate was used for so long."""
        self._seconds += seconds

    def answered(self, latency_seconds: float) -> None:
        """A request got through after so long: a part of one more may be under way at any time."""
        self._by_answers += TUNING.ramp_per_answer / max(latency_seconds, _SHORTEST_LATENCY_SECONDS)


class Course:
    """The rate after a refusal: it keeps the limit that was found, or seeks it.

    To keep a limit, the rate follows CUBIC (RFC 9438), which has a window where we have a rate: back to the limit on
    ``limit * (1 - depth * ((K - t) / K) ** 3)``, then beyond it. At a low limit K is longer and the depth is less;
    where a refusal costs much time, K is longer. To seek a limit, the rate doubles again and again, until the next
    refusal.

    Args:
        limit_per_second: the limit as far as it is known.
        seeks: whether to seek the limit, which may be another one.
        cost_seconds: how long requests wait after a refusal.
    """

    __slots__ = ("_depth", "_rest_seconds", "_seconds", "limit_per_second", "seeks")

    def __init__(self, limit_per_second: float, *, seeks: bool = False, cost_seconds: float = 0.0) -> None:
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
        return self.seeks or self._seconds < self._rest_seconds

    def advance(self, seconds: float) -> None:
        """The rate was used for so long."""
        self._seconds += seconds
