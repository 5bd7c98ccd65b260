"""What the store is asked, seldom enough that the asking costs nothing to speak of."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from worker.queue import QueueError

T = TypeVar("T")

_SHORTEST_SECONDS = 0.9
_COST = 0.01  # of the time may go into asking: counting ten million rows takes a while


class Asked(Generic[T]):
    """One of the queue's figures, at most as old as asking for it costs.

    Args:
        ask: asks the queue.
        timeout_seconds: longest wait for the store.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], timeout_seconds: float) -> None:
        self._ask_queue = ask
        self._timeout_seconds = timeout_seconds
        self._ask_at = 0.0
        self._asking = asyncio.Lock()
        self.value: T | None = None
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"<Asked [{self.error or 'well'}]>"

    async def look(self) -> T | None:
        """The figure; None, with `error` set, while the store does not answer."""
        async with self._asking:  # many who look at once are served by one question
            if time.monotonic() >= self._ask_at:
                await self._ask()
        return self.value

    def forget(self) -> None:
        """Ask again at the next look: somebody has changed what there is."""
        self._ask_at = 0.0

    async def _ask(self) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self.value, self.error = await self._ask_queue(), None
        except TimeoutError:
            self.value, self.error = None, "the store did not answer in time"
        except QueueError as error:
            self.value, self.error = None, str(error)
        ended = time.monotonic()
        self._ask_at = ended + max(_SHORTEST_SECONDS, (ended - started) / _COST if self.error is None else 0.0)
