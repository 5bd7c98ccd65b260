"""A simulated service with a rate limit. Its answers cost virtual time only."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol

Hint = Literal["none", "integer", "milliseconds", "date"] | float
Trouble = Literal["unauthorized", "unavailable", "hang"]


class Limiter(Protocol):
    """Allows requests or refuses them. Times never go back."""

    def passes(self, now: float) -> bool: ...

    def wait_seconds(self, now: float) -> float:
        """The time until a request would pass."""

    def set_limit(self, now: float, per_minute: float) -> None: ...


@dataclass
class BucketLimiter:
    """A token bucket that is full at first. Refused requests may take tokens, too, down to a bucket's debt."""

    per_minute: float
    burst_seconds: float = 1.0
    rejects_count: bool = True
    tokens: float = field(init=False)
    filled_at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_minute / 60.0 * self.burst_seconds)

    def passes(self, now: float) -> bool:
        self._fill(now)
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return True
        if self.rejects_count:
            self.tokens = max(self.tokens - 1.0, -self.capacity)
        return False

    def wait_seconds(self, now: float) -> float:
        self._fill(now)
        return max(0.0, (1.0 - self.tokens) * 60.0 / self.per_minute)

    def set_limit(self, now: float, per_minute: float) -> None:
        self._fill(now)
        self.per_minute = per_minute
        self.tokens = min(self.tokens, self.capacity)

    def _fill(self, now: float) -> None:
        self.tokens = min(self.capacity, self.tokens + (now - self.filled_at) * self.per_minute / 60.0)
        self.filled_at = now


@dataclass
class WindowLimiter:
    """Fixed windows of a minute; the first one begins at time zero."""

    per_minute: float
    began_at: float = 0.0
    seconds: float = 60.0
    used: int = 0
    window: int = 0

    def passes(self, now: float) -> bool:
        window = int((now - self.began_at) // self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        self.used += 1
        return self.used <= self.per_minute

    def wait_seconds(self, now: float) -> float:
        return self.seconds - (now - self.began_at) % self.seconds

    def set_limit(self, now: float, per_minute: float) -> None:  # noqa: ARG002 -- takes effect at once
        self.per_minute = per_minute


@dataclass
class SlidingLimiter:
    """At most so many in any minute. Refused requests may count, too."""

    per_minute: float
    rejects_count: bool = True
    seconds: float = 60.0
    counted: deque[float] = field(default_factory=deque)

    def passes(self, now: float) -> bool:
        while self.counted and self.counted[0] <= now - self.seconds:
            self.counted.popleft()
        passes = len(self.counted) < self.per_minute
        if passes or self.rejects_count:
            self.counted.append(now)
        return passes

    def wait_seconds(self, now: float) -> float:
        excess = len(self.counted) - int(self.per_minute)
        return max(0.0, self.counted[excess] + self.seconds - now) if excess >= 0 else 0.0

    def set_limit(self, now: float, per_minute: float) -> None:  # noqa: ARG002 -- takes effect at once
        self.per_minute = per_minute


@dataclass
class NoLimiter:
    """A service without a limit."""

    per_minute: float

    def passes(self, now: float) -> bool:  # noqa: ARG002 -- at any time
        return True

    def wait_seconds(self, now: float) -> float:  # noqa: ARG002 -- at any time
        return 0.0

    def set_limit(self, now: float, per_minute: float) -> None:  # noqa: ARG002 -- takes effect at once
        self.per_minute = per_minute


@dataclass
class Headers:
    """The limit that the service announces, by a bucket that may differ from the enforced one."""

    limit: float
    period_seconds: float
    used: float = 0.0
    filled_at: float = 0.0
    windowed: bool = False
    began_at: float = 0.0

    def count(self, now: float) -> None:
        if self.windowed:
            if (now - self.began_at) // self.period_seconds != (self.filled_at - self.began_at) // self.period_seconds:
                self.used = 0.0
        else:
            self.used = max(0.0, self.used - (now - self.filled_at) * self.limit / self.period_seconds)
        self.filled_at = now
        self.used = min(self.limit, self.used + 1.0)

    def values(self) -> tuple[float, float, float]:
        """limit, remaining, reset in seconds (to the millisecond)."""
        if self.windowed:
            reset_seconds = self.period_seconds - (self.filled_at - self.began_at) % self.period_seconds
        else:
            reset_seconds = self.used * self.period_seconds / self.limit
        return self.limit, math.floor(self.limit - self.used), math.ceil(reset_seconds * 1000) / 1000


def hint_seconds(hint: Hint, wait_seconds: float, now: float) -> float | None:
    """The client's view of the service's ``Retry-After``; a number is the same in every answer, true or not."""
    match hint:
        case "none":
            return None
        case "integer":
            return float(math.ceil(wait_seconds))
        case "milliseconds":
            return math.ceil(wait_seconds * 1000) / 1000
        case "date":
            return max(0.0, math.ceil(now + wait_seconds) - now)
        case seconds:
            return float(seconds)
