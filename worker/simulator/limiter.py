"""Rate limiters as pure arithmetic; the caller passes the time."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from worker.simulator.options import RateLimit

# A retry exactly at the announced time must not fail for a float's last bit.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Admission:
    """A limiter's decision on one request.

    Args:
        wait_seconds: 0 if the request is admitted; else the time until one would be.
        left: the remaining share of the limit, from 0 to 1.
        reset_seconds: time until the whole limit is available again without further requests.
    """

    wait_seconds: float
    left: float
    reset_seconds: float

    @property
    def admitted(self) -> bool:
        return self.wait_seconds == 0


class Limiter(Protocol):
    """Counts requests against a limit."""

    def take(self, now: float) -> Admission:
        """Admit or reject one request; `now` is monotonic, in seconds."""


class TokenBucket:
    """Tokens accrue at the limit's rate, up to a capacity; each request takes one."""

    def __init__(self, rate_per_second: float, capacity: float, *, rejected_count: bool) -> None:
        self._rate_per_second = rate_per_second
        self._capacity = capacity
        self._rejected_count = rejected_count
        self._tokens = capacity
        self._filled_at = -math.inf

    def take(self, now: float) -> Admission:
        elapsed = now - self._filled_at
        self._tokens = min(self._capacity, self._tokens + elapsed * self._rate_per_second)
        self._filled_at = now
        admitted = self._tokens >= 1 - _ROUNDING
        if admitted:
            self._tokens -= 1
        elif self._rejected_count:
            self._tokens = max(self._tokens - 1, -self._capacity)
        return Admission(
            wait_seconds=0.0 if admitted else (1 - self._tokens) / self._rate_per_second,
            left=max(self._tokens, 0.0) / self._capacity,
            reset_seconds=(self._capacity - self._tokens) / self._rate_per_second,
        )


class FixedWindow:
    """Admits `allowance` requests per window; the first request starts the first window."""

    def __init__(self, allowance: int, window_seconds: float) -> None:
        self._allowance = allowance
        self._window_seconds = window_seconds
        self._started_at: float | None = None
        self._window = 0
        self._count = 0

    def take(self, now: float) -> Admission:
        if self._started_at is None:
            self._started_at = now
        window = int((now - self._started_at) / self._window_seconds + _ROUNDING)
        if window != self._window:
            self._window, self._count = window, 0
        reset_seconds = self._started_at + (window + 1) * self._window_seconds - now
        admitted = self._count < self._allowance
        if admitted:
            self._count += 1
        return Admission(
            wait_seconds=0.0 if admitted else reset_seconds,
            left=1 - self._count / self._allowance,
            reset_seconds=reset_seconds,
        )


class SlidingWindow:
    """Admits `allowance` requests in any period of the window's length."""

    def __init__(self, allowance: int, window_seconds: float, *, rejected_count: bool) -> None:
        self._allowance = allowance
        self._window_seconds = window_seconds
        self._rejected_count = rejected_count
        # The last `allowance` requests suffice: the oldest of them must leave the window first.
        self._counted_at: deque[float] = deque(maxlen=allowance)

    def take(self, now: float) -> Admission:
        counted_at = self._counted_at
        while counted_at and counted_at[0] + self._window_seconds <= now + _ROUNDING:
            counted_at.popleft()
        admitted = len(counted_at) < self._allowance
        if admitted or self._rejected_count:
            counted_at.append(now)
        return Admission(
            wait_seconds=0.0 if admitted else counted_at[0] + self._window_seconds - now,
            left=1 - len(counted_at) / self._allowance,
            reset_seconds=counted_at[-1] + self._window_seconds - now,
        )


def limiter_for(limit: RateLimit) -> Limiter:
    """Return a new limiter for this limit."""
    rate_per_second = limit.requests_per_minute / 60
    if limit.kind == "bucket":
        capacity = max(1.0, rate_per_second) if limit.burst is None else limit.burst
        return TokenBucket(rate_per_second, capacity, rejected_count=limit.rejected_count)
    window_seconds = 60.0 if limit.window_seconds is None else limit.window_seconds
    allowance = max(1, round(rate_per_second * window_seconds))
    if limit.kind == "fixed-window":
        return FixedWindow(allowance, window_seconds)
    return SlidingWindow(allowance, window_seconds, rejected_count=limit.rejected_count)
