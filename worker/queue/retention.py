"""Delete expired data: old dead letters, finished batches, records of applied changes, and confirmed metadata."""

from typing import NamedTuple, Protocol

import structlog

from worker.queue.batch import Batches
from worker.queue.letters import DeadLetters

MOST_AT_ONCE = 1_000  # in one transaction, of each kind
_SHORTEST_KEPT_SECONDS = 3_600.0  # for a finished batch, whose result users may still read


class Kept(DeadLetters, Batches, Protocol):
    """A store of finished things."""

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete old maps; see `Queue.forget_confirmed`."""


class LetGo(NamedTuple):
    """How much one step deleted: dead letters, and other records."""

    letters: int
    forgotten: int


async def let_go(
    queue: Kept,
    logger: structlog.typing.FilteringBoundLogger,
    *,
    dead_seconds: float | None,
    keep_seconds: float,
    confirmed_seconds: float,
) -> LetGo:
    """Delete the first expired data.

    Args:
        logger: gets `dead.expired` if dead letters were deleted.
        dead_seconds: the maximum age of a dead letter; None for no limit.
        keep_seconds: how long to remember applied changes and, for at least an hour, finished batches.
        confirmed_seconds: how long to keep the metadata that the service confirmed.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    await queue.forget_confirmed(confirmed_seconds, most=MOST_AT_ONCE)
    forgotten = await queue.forget(max(keep_seconds, _SHORTEST_KEPT_SECONDS), most=MOST_AT_ONCE)
    letters = 0 if dead_seconds is None else await queue.expire_dead(dead_seconds, most=MOST_AT_ONCE)
    if letters:
        logger.info("dead.expired", letters=letters, older_than_seconds=dead_seconds)
    return LetGo(letters, forgotten)
