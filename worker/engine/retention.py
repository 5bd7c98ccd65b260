"""Deletes dead letters that are older than they may grow, in the background, a little at a time."""

import asyncio
from contextlib import suppress

import structlog

from worker.engine.tallies import Tallies
from worker.queue import DeadLetters, QueueUnavailable

_MOST = 1_000  # letters in one transaction, and in a second
_SHORTEST_PAUSE_SECONDS = 0.05
_EVERY_SECONDS = 60.0  # when nothing is left to delete


async def expire(queue: DeadLetters, logger: structlog.typing.FilteringBoundLogger, older_than_seconds: float) -> int:
    """Delete the first of the letters that are too old; returns how many there were.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    letters = await queue.expire_dead(older_than_seconds, most=_MOST)
    if letters:
        logger.info("dead.expired", letters=letters, older_than_seconds=older_than_seconds)
    return letters


class Retention:
    """Looks for old letters when it begins, and once a minute.

    Args:
        older_than_seconds: how old a letter may grow.
        tallies: count what is deleted.
        logger: gets `dead.expired`.
    """

    def __init__(
        self,
        queue: DeadLetters,
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
        older_than_seconds: float,
    ) -> None:
        self._queue = queue
        self._tallies = tallies
        self._logger = logger
        self._older_than_seconds = older_than_seconds

    def __repr__(self) -> str:
        return f"<Retention [{self._older_than_seconds:g} s]>"

    async def run(self) -> None:
        """Delete for ever; a store that is away keeps its letters for longer."""
        while True:
            letters = 0
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                letters = await expire(self._queue, self._logger, self._older_than_seconds)
            self._tallies.letters_expired += letters
            await asyncio.sleep(max(letters / _MOST, _SHORTEST_PAUSE_SECONDS) if letters else _EVERY_SECONDS)
