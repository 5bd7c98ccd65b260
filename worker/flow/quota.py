"""What the store granted of the quota that all workers share: requests that may start from their time on."""

import math
from collections import deque
from collections.abc import Callable

# A request that is overdue for longer is forgotten, or many would start in one burst.
_LONGEST_KEPT_SECONDS = 1.0


class GrantedQuota:
    """Grants of the shared quota: it stands in for the `Bucket` by which one worker alone keeps a rate.

    Like that one it reads no clock; times are in seconds.

    Args:
        on_short: called when a request is wanted or has started, and half of the latest grant or less is left.
    """

    __slots__ = ("_block", "_due", "_now", "_on_short")

    def __init__(self, on_short: Callable[[], None]) -> None:
        self._on_short = on_short
        self._due: deque[float] = deque()  # when each request that is left may start
        self._block = 0
        self._now = -math.inf

    def __repr__(self) -> str:
        return f"<GrantedQuota [{len(self._due)} granted]>"

    def grant(self, starts_at: float, requests: int, interval_seconds: float) -> None:
        """Take in a block: the first may start at `starts_at`, each further one an interval later."""
        self._due.extend(starts_at + number * interval_seconds for number in range(requests))
        self._block = requests

    def fill(self, now: float, _per_second: float = math.inf) -> None:
        """Go on to this time, and forget what is long overdue."""
        self._now = now
        while self._due and self._due[0] < now - _LONGEST_KEPT_SECONDS:
            self._due.popleft()

    def wait_seconds(self, _per_second: float = math.inf) -> float:
        """Seconds from the last fill until a request may start; infinity when none is granted."""
        if self._due and self._due[0] <= self._now:
            return 0.0
        self._ask_when_short()
        return self._due[0] - self._now if self._due else math.inf

    def take(self) -> None:
        """A request starts."""
        self._due.popleft()
        self._ask_when_short()

    def give_back(self) -> None:
        """It was never sent."""
        self._due.appendleft(self._now)

    def _ask_when_short(self) -> None:
        if 2 * len(self._due) <= self._block:
            self._on_short()
