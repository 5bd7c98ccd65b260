"""Deletes old dead letters and old remembered results from the queue, in the background, a little at a time."""

import asyncio
from contextlib import suppress

import structlog

from worker.engine.tallies import Tallies
from worker.queue import QueueUnavailable
from worker.queue.retention import MOST_AT_ONCE, Kept, let_go

_SHORTEST_PAUSE_SECONDS = 0.05
_EVERY_SECONDS = 60.0  # when nothing is left to delete


class Retention:
    """Deletes what is too old: at its start, and then once a minute.

    Args:
        dead_seconds: age at which dead letters are deleted; None to keep them.
        keep_seconds: age at which remembered changes are deleted; results of batches are kept for an hour at least.
        confirmed_seconds: age at which the metadata that the service confirmed is deleted.
        tallies: count the deleted letters.
        logger: gets `dead.expired`.
    """

    def __init__(
        self,
        queue: Kept,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        dead_seconds: float | None,
        keep_seconds: float,
        confirmed_seconds: float,
        tallies: Tallies,
    ) -> None:
        self._queue = queue
        self._tallies = tallies
        self._logger = logger
        self._dead_seconds = dead_seconds
        self._keep_seconds = keep_seconds
        self._confirmed_seconds = confirmed_seconds

    def __repr__(self) -> str:
        return f"<Retention [{self._keep_seconds:g} s, of letters {self._dead_seconds} s]>"

    async def run(self) -> None:
        """Delete for ever. While the store is away, everything is kept for longer."""
        while True:
            pause_seconds = _EVERY_SECONDS
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                pause_seconds = await self.step()
            await asyncio.sleep(pause_seconds)

    async def step(self) -> float:
        """Delete a first part of what is too old; return the seconds until the next step.

        Raises:
            QueueUnavailable: the store does not answer.
        """
        gone = await let_go(
            self._queue,
            self._logger,
            dead_seconds=self._dead_seconds,
            keep_seconds=self._keep_seconds,
            confirmed_seconds=self._confirmed_seconds,
        )
        self._tallies.letters_expired += gone.letters
        if any(gone):
            return max(gone.letters / MOST_AT_ONCE, _SHORTEST_PAUSE_SECONDS)
        return _EVERY_SECONDS
