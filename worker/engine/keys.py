"""The API key, read again before a request where its source has changed: short-lived keys are renewed while we work."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.flow import Flow

_EVERY_SECONDS = 0.1

# Reads the key again where its source has changed, or, told True, in any case; says if it is another one.
ReadKey = Callable[[bool], Awaitable[bool]]


class KeyReader:
    """Keeps the key current, and flow control from believing what an earlier key met.

    Args:
        read: None where the key cannot change.
        clock: monotonic seconds.
    """

    def __init__(self, read: ReadKey | None, flow: Flow, clock: Callable[[], float]) -> None:
        self._read = read
        self._flow = flow
        self._clock = clock
        self._looked_at = clock()
        self._looking = asyncio.Lock()

    def is_due(self) -> bool:
        """Whether to `refresh`; asked before each request, so it costs next to nothing."""
        if self._read is None:
            return False
        return self._looking.locked() or self._clock() - self._looked_at >= _EVERY_SECONDS

    async def refresh(self, *, probe: bool) -> None:
        """Read the key, before a probe in any case; while it is read, no request goes out with the one before."""
        if self._read is None:
            return
        async with self._looking:
            if not probe and self._clock() - self._looked_at < _EVERY_SECONDS:
                return  # another has just looked
            if await self._read(probe):
                self._flow.new_key()
            self._looked_at = self._clock()
