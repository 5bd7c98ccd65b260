"""Queue figures, cached so that asking the store for them costs next to nothing."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from worker.queue import QueueError
from worker.web.trouble import Trouble

T = TypeVar("T")

STORE_TIMEOUT_SECONDS = 2.0  # longest wait for an answer
_SHORTEST_SECONDS = 0.9
_COST = 0.01  # the share of time that may go into asking: counting ten million rows is slow


class Asked(Generic[T]):
    """One of the queue's figures, cached for a time in proportion to its cost.

    Args:
        name: of the figure, for the log.
        ask: asks the queue.
        timeout_seconds: longest wait for the store.
        clock: monotonic, seconds.
    """

    def __init__(
        self, name: str, ask: Callable[[], Awaitable[T]], *, timeout_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._trouble = Trouble(name)
        self._ask_queue = ask
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._ask_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self.value: T | None = None
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"<Asked [{self.error or 'well'}]>"

    async def look(self) -> T | None:
        """Return the figure; None, with `error` set, while the store does not answer."""
        if self._clock() >= self._ask_at:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)  # callers share one query; it goes on where one of them goes
        return self.value

    def forget(self) -> None:
        """Drop the cached figure, because a caller has changed the queue."""
        self._ask_at = -math.inf

    async def _ask(self) -> None:
        started = self._clock()
        self.value, self.error = None, "the store's answer makes no sense: web.failing in the log says more"
        with self._trouble.contained():
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    self.value, self.error = await self._ask_queue(), None
            except TimeoutError:
                self.error = "the store did not answer in time"
            except QueueError as error:
                self.error = str(error)
        ended = self._clock()
        self._ask_at = ended + max(_SHORTEST_SECONDS, (ended - started) / _COST if self.error is None else 0.0)
