"""A token bucket with hardly any burst: what spreads requests evenly over time."""

BURST_SECONDS = 0.1  # so that what comes in while a timer is late is not lost
_ENOUGH = 1.0 - 1e-9  # sums of tenths do not come out at exactly one


class Bucket:
    """Holds one token and a tenth of a second's worth; one token is one request.

    It reads no clock: each call is handed the time, in seconds.
    """

    __slots__ = ("_tokens", "filled_at")

    def __init__(self, now: float) -> None:
        self.reset(now)

    def reset(self, now: float) -> None:
        """Hold exactly one."""
        self._tokens = 1.0
        self.filled_at = now

    def fill(self, now: float, per_second: float) -> float:
        """Let in the tokens that came since the last call.

        Returns:
            for how many seconds there was room for them.
        """
        elapsed = now - self.filled_at
        if elapsed <= 0.0:
            return 0.0
        self.filled_at = now
        room = 1.0 + BURST_SECONDS * per_second - self._tokens
        if room <= 0.0:
            return 0.0
        gained = elapsed * per_second
        if gained <= room:
            self._tokens += gained
            return elapsed
        self._tokens += room
        return room / per_second

    def wait_seconds(self, per_second: float) -> float:
        """Seconds from the last fill until a request may take a token; 0 when there is one."""
        return 0.0 if self._tokens >= _ENOUGH else (1.0 - self._tokens) / per_second

    def take(self) -> None:
        """A request starts."""
        self._tokens -= 1.0

    def give_back(self) -> None:
        """It was never sent."""
        self._tokens += 1.0
