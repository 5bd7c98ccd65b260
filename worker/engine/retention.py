"""Lets go of what is done, in the background, a little at a time: old dead letters, and what is remembered."""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from worker.engine.tallies import Tallies
from worker.queue import Batches, DeadLetters, QueueUnavailable

_MOST = 1_000  # in one transaction, of each kind; of letters, in a second too
_SHORTEST_PAUSE_SECONDS = 0.05
_EVERY_SECONDS = 60.0  # when nothing is left to let go of
_SHORTEST_KEPT_SECONDS = 3_600.0  # of a batch that is finished: somebody may still ask what became of it


class Kept(DeadLetters, Batches, Protocol):
    """What keeps things that are done."""


class Retention:
    """Looks for what is too old when it begins, and once a minute.

    Args:
        dead_seconds: how old a dead letter may grow; None: as old as it gets.
        keep_seconds: how long is remembered what was applied, and, for an hour at least, what became of batches.
        tallies: count the letters that are deleted.
        logger: gets `dead.expired`.
    """

    def __init__(
        self,
        queue: Kept,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        dead_seconds: float | None,
        keep_seconds: float,
        tallies: Tallies | None = None,
    ) -> None:
        self._queue = queue
        self._tallies = tallies
        self._logger = logger
        self._dead_seconds = dead_seconds
        self._keep_seconds = max(keep_seconds, _SHORTEST_KEPT_SECONDS)

    def __repr__(self) -> str:
        return f"<Retention [{self._keep_seconds:g} s, of letters {self._dead_seconds} s]>"

    async def run(self) -> None:
        """Look for ever; a store that is away keeps all for longer."""
        while True:
            pause_seconds = _EVERY_SECONDS
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                pause_seconds = await self.step()
            await asyncio.sleep(pause_seconds)

    async def step(self) -> float:
        """Let go of the first of what is too old; gives the seconds until there should be a next step.

        Raises:
            QueueUnavailable: the store does not answer.
        """
        forgotten = await self._queue.forget(self._keep_seconds, most=_MOST)
        letters = 0
        if self._dead_seconds is not None:
            letters = await self._queue.expire_dead(self._dead_seconds, most=_MOST)
        if letters:
            if self._tallies is not None:
                self._tallies.letters_expired += letters
            self._logger.info("dead.expired", letters=letters, older_than_seconds=self._dead_seconds)
        if letters or forgotten:
            return max(letters / _MOST, _SHORTEST_PAUSE_SECONDS)
        return _EVERY_SECONDS
