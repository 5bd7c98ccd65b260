"""What a worker leaves in the store for others: how it is doing now, and the limit that it found."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import msgspec

from worker.flow import FlowState
from worker.queue import Queue, QueueUnavailable
from worker.queue.notes import LIMIT, WORKER, at_work, limit_in

_EVERY_SECONDS = 2.0


class Notes:
    """Writes one worker's notes.

    Args:
        owner: names the worker.
        state: what flow control is doing.
        workers: how many there are: what each finds is its part of the limit.
    """

    def __init__(self, queue: Queue, owner: str, state: Callable[[], FlowState], workers: Callable[[], int]) -> None:
        self._queue = queue
        self._name = WORKER + owner
        self._state = state
        self._workers = workers

    async def keep(self) -> None:
        """Write them every few seconds, until cancelled; a store that is away is told again later."""
        while True:
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                await self.write()
            await asyncio.sleep(_EVERY_SECONDS)

    async def write(self) -> None:
        """Write them now."""
        state = self._state()
        await self._queue.write_note(self._name, msgspec.json.encode(asdict(state)).decode())
        if state.limit_found_per_second is not None:
            await self._queue.write_note(LIMIT, repr(state.limit_found_per_second * self._workers()))

    async def remove(self) -> None:
        """The worker ends; the limit that it found stays."""
        with suppress(QueueUnavailable):  # then it will look old soon enough
            await self.write()
            await self._queue.write_note(self._name, None)


async def last_limit(queue: Queue) -> float | None:
    """The part of the limit found last that is one more worker's, in requests a second; None when none is known."""
    try:
        notes = await queue.read_notes()
    except QueueUnavailable:
        return None
    limit = limit_in(notes)
    return None if limit is None else limit / (len(at_work(notes)) + 1)
