"""Whether the event loop turns, and how late it is."""

import asyncio
import time

_TICK_SECONDS = 0.25
_STUCK_SECONDS = 15.0


class Pulse:
    """Ticks for as long as the loop turns; can be asked from wherever."""

    def __init__(self) -> None:
        self._ticked_at = time.monotonic()
        self.lag_seconds = 0.0
        self.worst_lag_seconds = 0.0

    def __repr__(self) -> str:
        return f"<Pulse [{self.age_seconds:.3f} s old, {self.lag_seconds:.3f} s late]>"

    @property
    def age_seconds(self) -> float:
        """How long ago the last tick was."""
        return time.monotonic() - self._ticked_at

    @property
    def is_stuck(self) -> bool:
        """Whether the loop has not turned for far too long."""
        return self.age_seconds > _STUCK_SECONDS

    async def beat(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.lag_seconds = max(0.0, self.age_seconds - _TICK_SECONDS)
            self.worst_lag_seconds = max(self.worst_lag_seconds, self.lag_seconds)
            self._ticked_at = time.monotonic()
