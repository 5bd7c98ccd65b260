"""How much the queue holds, asked seldom enough that the asking costs nothing to speak of."""

import asyncio
import time

from worker.queue import Queue, QueueError
from worker.queue.base import QueueStatus

_SHORTEST_SECONDS = 1.0
_COST = 0.01  # of the time may go into asking: counting ten million rows takes a while


class Depth:
    """The queue's figures, at most as old as asking for them costs.

    Args:
        timeout_seconds: longest wait for the store.
    """

    def __init__(self, queue: Queue, timeout_seconds: float) -> None:
        self._queue = queue
        self._timeout_seconds = timeout_seconds
        self._ask_at = 0.0
        self._asking = asyncio.Lock()
        self.status: QueueStatus | None = None
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"<Depth [{self.error or 'well'}]>"

    async def look(self) -> QueueStatus | None:
        """The figures; None, with `error` set, while the store does not answer."""
        async with self._asking:  # many who look at once are served by one question
            if time.monotonic() >= self._ask_at:
                await self._ask()
        return self.status

    async def _ask(self) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self.status, self.error = await self._queue.status(), None
        except TimeoutError:
            self.status, self.error = None, "the store did not answer in time"
        except QueueError as error:
            self.status, self.error = None, str(error)
        ended = time.monotonic()
        self._ask_at = ended + max(_SHORTEST_SECONDS, (ended - started) / _COST if self.error is None else 0.0)
