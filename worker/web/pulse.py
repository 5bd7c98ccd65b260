"""Measure whether the event loop runs, and its lag."""

import asyncio
from collections.abc import Callable

_TICK_SECONDS = 0.25
_STUCK_SECONDS = 15.0


class Pulse:
    """Ticks while the loop runs; any thread may read it.

    Args:
        clock: monotonic, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ticked_at = clock()
        self.lag_seconds = 0.0
        self.worst_lag_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Pulse [{self.age_seconds:.3f} s old, {self.lag_seconds:.3f} s late]>"

    @property
    def age_seconds(self) -> float:
        """How long ago the last tick was."""
        return self._clock() - self._ticked_at

    @property
    def is_stuck(self) -> bool:
        """Whether the loop has been stuck for far too long."""
        return self.age_seconds > _STUCK_SECONDS

    async def beat(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.lag_seconds = max(0.0, self.age_seconds - _TICK_SECONDS)
            self.worst_lag_seconds = max(self.worst_lag_seconds, self.lag_seconds)
            self._ticked_at = self._clock()
