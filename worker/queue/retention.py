"""Letting go of what is done: old dead letters, finished batches, and what is remembered of applied changes."""

from typing import NamedTuple, Protocol

from worker.queue.batch import Batches
from worker.queue.letters import DeadLetters

MOST_AT_ONCE = 1_000  # in one transaction, of each kind
_SHORTEST_KEPT_SECONDS = 3_600.0  # of a batch that is finished: somebody may still ask what became of it


class Kept(DeadLetters, Batches, Protocol):
    """What keeps things that are done."""


class LetGo(NamedTuple):
    """How much went in one step: dead letters, and what was remembered."""

    letters: int
    forgotten: int


async def let_go(queue: Kept, *, dead_seconds: float | None, keep_seconds: float) -> LetGo:
    """Let go of the first of what is too old.

    Args:
        dead_seconds: how old a dead letter may grow; None: as old as it gets.
        keep_seconds: how long is remembered what was applied, and, for an hour at least, what became of batches.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    forgotten = await queue.forget(max(keep_seconds, _SHORTEST_KEPT_SECONDS), most=MOST_AT_ONCE)
    letters = 0 if dead_seconds is None else await queue.expire_dead(dead_seconds, most=MOST_AT_ONCE)
    return LetGo(letters, forgotten)
