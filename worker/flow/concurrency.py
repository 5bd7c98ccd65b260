"""How many requests at once: what rate and latency need."""

import math

from worker.flow.tuning import TUNING

_SAMPLE_SIZE = 64
_MIN_SLOTS = 16  # so that some requests that hang do not stop the others


class Concurrency:
    """The number of requests that may run at once: `slots`.

    It is twice what the rate needs at the mean latency, by Little's law, and at most what is configured.

    Raises:
        ValueError: less than one is configured.
    """

    __slots__ = ("_configured", "_latency_seconds", "_measured", "slots")

    def __init__(self, configured: int) -> None:
        if configured < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {configured}")
        self.slots = self._configured = configured
        self._latency_seconds = 0.0
        self._measured = 0

    def ended(self, latency_seconds: float, *, per_second: float) -> None:
        """Learn how long a request held its slot, and what the rate is that is aimed at."""
        if self._measured < _SAMPLE_SIZE:
            self._measured += 1
        self._latency_seconds += (latency_seconds - self._latency_seconds) / self._measured
        needed = TUNING.headroom * per_second * self._latency_seconds
        self.slots = self._configured
        if needed < self._configured:  # else, as at most rates, there is nothing to round
            self.slots = min(self._configured, max(_MIN_SLOTS, math.ceil(needed)))
