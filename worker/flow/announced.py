"""What rate-limit headers say, and how far to believe it: a cap on the rate, and a brake near the end."""

import math

_CAP = 0.995  # of the limit: at the limit itself the last request of a window falls on either side of its end
_BRAKE_BELOW = 0.1  # of the limit remaining
_BRAKE_FLOOR = 0.1  # of the limit: a brake slows, it does not stop
_PLENTY = 0.2  # of the limit remaining
_MINUTE_TOLERANCE = 2.0


class Announced:
    """The ceiling that an endpoint's ``x-ratelimit-*-requests`` headers set on the rate.

    A limit is read as requests a minute. It counts once a fifth of it or more was seen to remain. It is a cap once a
    reset has shown that the unit is a minute. ``reset`` is the time until all is there again: where the limit is one a
    second, ``(limit - remaining) / reset`` is sixty times too fast for a minute. Resets of 0 and -1, which Azure has
    sent, show nothing.
    """

    __slots__ = ("_is_minute", "_limit", "_plenty_seen", "_remaining", "_reset_seconds", "_until")

    def __init__(self) -> None:
        self._limit = 0.0
        self._plenty_seen = False
        self._is_minute = False
        self._remaining = self._reset_seconds = self._until = 0.0  # of the last reading, and for how long it counts

    def hear(self, now: float, limit: float, remaining: float | None, reset_seconds: float | None) -> None:
        """Take in one answer's headers, but for values that make no sense.

        Args:
            limit, remaining: requests, as the headers give them.
            reset_seconds: the header's duration in seconds.
        """
        if not (math.isfinite(limit) and limit > 0.0):
            return
        self._limit = limit
        if remaining is None or not 0.0 <= remaining <= limit:
            return
        self._plenty_seen |= remaining >= _PLENTY * limit
        if reset_seconds is not None and 0.0 < reset_seconds < math.inf:
            used = limit - remaining
            self._is_minute |= 1.0 <= used <= _MINUTE_TOLERANCE * limit / 60.0 * reset_seconds
            self._remaining, self._reset_seconds, self._until = remaining, reset_seconds, now + reset_seconds

    def ceiling_per_second(self, now: float) -> float:
        """The highest rate that the headers allow now; infinite when they say nothing to be believed."""
        if not self._plenty_seen:
            return math.inf
        per_second = self._limit / 60.0
        cap = per_second * _CAP if self._is_minute else math.inf
        if now >= self._until or self._remaining >= _BRAKE_BELOW * self._limit:
            return cap
        return min(cap, max(self._remaining / self._reset_seconds, _BRAKE_FLOOR * per_second))
