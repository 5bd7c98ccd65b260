"""The adaptive retry mode that AWS documents for its clients, `botocore` among them, as a contender.

Written from its description ("Retry behavior" in the AWS SDKs and Tools Reference Guide). It has a token bucket in the
client, whose rate follows CUBIC in the measured rate, and a retry quota. It heeds no ``Retry-After``.
"""

import asyncio
import time

_BETA = 0.7
_SCALE = 0.4
_SMOOTH = 0.8
_BUCKET_SECONDS = 0.5
_LOWEST_PER_SECOND = 0.5


class AdaptiveRate:
    """Requests a second, limited from the first throttled answer on. Times are in seconds.

    Args:
        now: the time.
    """

    def __init__(self, now: float) -> None:
        self.enabled = False
        self.per_second = _LOWEST_PER_SECOND
        self._tokens = 0.0
        self._filled_at = now
        self._measured = 0.0
        self._counted = 0
        self._counting_from = now
        self._last_throttled_at = now
        self._last_highest = 0.0

    def wait_seconds(self, now: float) -> float:
        """Until a request may start; 0 takes its token."""
        if not self.enabled:
            return 0.0
        self._fill(now)
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self.per_second
        self._tokens -= 1.0
        return 0.0

    def answered(self, now: float, *, throttled: bool) -> None:
        """Learn from an answer."""
        self._measure(now)
        if throttled:
            used = min(self._measured, self.per_second) if self.enabled else self._measured
            self._last_highest, self._last_throttled_at, self.enabled = used, now, True
            calculated = used * _BETA
        else:
            past = now - self._last_throttled_at - (self._last_highest * (1.0 - _BETA) / _SCALE) ** (1.0 / 3.0)
            calculated = _SCALE * past**3 + self._last_highest
        self._fill(now)
        self.per_second = max(_LOWEST_PER_SECOND, min(calculated, 2.0 * self._measured))
        self._tokens = min(self._tokens, max(1.0, self.per_second))

    def _fill(self, now: float) -> None:
        self._tokens = min(max(1.0, self.per_second), self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now

    def _measure(self, now: float) -> None:
        self._counted += 1
        seconds = now - self._counting_from
        if seconds >= _BUCKET_SECONDS:
            self._measured += _SMOOTH * (self._counted / seconds - self._measured)
            self._counted, self._counting_from = 0, now


class RetryQuota:
    """500 tokens: a retry takes 5, and a success after it returns them; any other success returns one."""

    _CAPACITY = 500
    _COST = 5

    def __init__(self) -> None:
        self._tokens = self._CAPACITY

    def take(self) -> bool:
        """Whether a retry may be made."""
        if self._tokens < self._COST:
            return False
        self._tokens -= self._COST
        return True

    def succeeded(self, *, retried: bool) -> None:
        """Return the tokens of a success."""
        self._tokens = min(self._CAPACITY, self._tokens + (self._COST if retried else 1))


async def turn(rate: AdaptiveRate) -> None:
    """Wait until a request may start."""
    seconds = rate.wait_seconds(time.monotonic())
    while seconds > 0.0:
        await asyncio.sleep(seconds)
        seconds = rate.wait_seconds(time.monotonic())
