"""Keeps the API key current: short-lived keys are renewed while the worker runs."""

import asyncio
from collections.abc import Awaitable, Callable

from worker.flow import Flow

_EVERY_SECONDS = 0.1

# Reads the key again if its source has changed, or in any case when told True. Returns whether the key is new.
ReadKey = Callable[[bool], Awaitable[bool]]


class KeyReader:
    """Reads the key again, and tells flow control when it is new, so that failures of an earlier key do not count.

    Args:
        read: None if the key cannot change.
        clock: monotonic seconds.
    """

    def __init__(self, read: ReadKey | None, flow: Flow, clock: Callable[[], float]) -> None:
        self._read = read
        self._flow = flow
        self._clock = clock
        self._looked_at = clock()
        self._looking = asyncio.Lock()

    def is_due(self) -> bool:
        """Whether to `refresh`. Each request asks, so it has to be cheap."""
        if self._read is None:
            return False
        return self._looking.locked() or self._clock() - self._looked_at >= _EVERY_SECONDS

    async def refresh(self, *, probe: bool) -> None:
        """Read the key. No request starts with the old one meanwhile.

        Args:
            probe: read it even if it was just read, and even if its source has not changed.
        """
        if self._read is None:
            return
        async with self._looking:
            if not probe and self._clock() - self._looked_at < _EVERY_SECONDS:
                return  # another task has just read it
            if await self._read(probe):
                self._flow.new_key()
            self._looked_at = self._clock()
