"""What rate-limit headers say, and how far to believe it: a prior and a cap on the rate, and a brake near the end."""

import math
from dataclasses import dataclass

_SECONDS_PER_MINUTE = 60.0
_CAP = 0.995  # of the limit: at the limit itself the last request of a window falls on either side of its end
_BRAKE_BELOW = 0.1  # of the limit remaining
_BRAKE_FLOOR = 0.1  # of the limit: a brake slows, it does not stop
_PLENTY = 0.2  # of the limit remaining
_MINUTE_TOLERANCE = 2.0
_READING_SECONDS = 10.0  # how long a reading without a reset counts


@dataclass(frozen=True, slots=True)
class _Reading:
    remaining: float
    reset_seconds: float
    until: float


class Announced:
    """The ceiling that an endpoint's ``x-ratelimit-*-requests`` headers set on the rate.

    A limit is read as one of requests per minute. It counts only after a fifth of it or more has been seen
    remaining; and it is a cap only when a reset has shown that the unit is a minute: ``reset`` is the time until
    all is there again, so that ``(limit - remaining) / reset``, when the limit is one per second, is sixty times too
    fast for a minute. Resets of 0 and -1, which Azure has sent, show nothing.
    """

    __slots__ = ("_limit", "_minute_seen", "_other_unit_seen", "_plenty_seen", "_reading")

    def __init__(self) -> None:
        self._limit: float | None = None
        self._plenty_seen = False
        self._minute_seen = False
        self._other_unit_seen = False
        self._reading: _Reading | None = None

    def hear(self, now: float, limit: float, remaining: float | None, reset_seconds: float | None) -> float:
        """Take in one answer's headers; values that make no sense are passed over.

        Args:
            limit, remaining: requests, as the headers give them.
            reset_seconds: the header's duration in seconds.

        Returns:
            the factor by which the limit changed against that of the answer before; 1 when it did not.
        """
        if not (math.isfinite(limit) and limit > 0.0):
            return 1.0
        change = 1.0 if self._limit is None else limit / self._limit
        self._limit = limit
        if remaining is not None and 0.0 <= remaining <= limit:
            usable_reset = reset_seconds if reset_seconds is not None and 0.0 < reset_seconds < math.inf else 0.0
            self._read(now, limit, remaining, usable_reset)
        return change

    def ceiling_per_second(self, now: float) -> float:
        """The highest rate that the headers allow now; infinite when they say nothing that can be believed."""
        if self._limit is None or not self._plenty_seen or (self._other_unit_seen and not self._minute_seen):
            return math.inf
        per_second = self._limit / _SECONDS_PER_MINUTE
        cap = per_second * _CAP if self._minute_seen else math.inf
        reading = self._reading
        if reading is None or now >= reading.until or reading.remaining >= _BRAKE_BELOW * self._limit:
            return cap
        if reading.reset_seconds > 0.0:
            brake = reading.remaining / reading.reset_seconds
        else:
            brake = per_second * reading.remaining / (_BRAKE_BELOW * self._limit)
        return min(cap, max(brake, _BRAKE_FLOOR * per_second))

    def _read(self, now: float, limit: float, remaining: float, reset_seconds: float) -> None:
        if remaining >= _PLENTY * limit:
            self._plenty_seen = True
        used = limit - remaining
        if reset_seconds > 0.0 and used >= 1.0:
            fastest = _MINUTE_TOLERANCE * limit / _SECONDS_PER_MINUTE
            if used / reset_seconds <= fastest:
                self._minute_seen = True
            else:
                self._other_unit_seen = True
        self._reading = _Reading(remaining, reset_seconds, now + (reset_seconds or _READING_SECONDS))
