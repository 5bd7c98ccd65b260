"""What a person has confirmed is to be done to dead letters: to those that were shown, and to no others."""

from typing import Annotated

import msgspec

from worker.queue import DeadLetters, DeadSelection


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters a person means: exactly one of number, reason and all is given.

    Args:
        completion: with a number, whose letter was shown.
        newest: with a reason, or all: the highest number among those that were shown.
        shown: with the same, how many there were.
        older_than_seconds: with the same, only those of them that died longer ago.
    """

    number: int | None = None
    completion: str | None = None
    reason: str | None = None
    all: bool = False
    newest: int | None = None
    shown: int | None = None
    older_than_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None

    def selection(self) -> DeadSelection:
        """Say it as the queue understands it.

        Raises:
            ValueError: it is not said which, or not what was shown.
        """
        if [self.number is not None, self.reason is not None, self.all].count(True) != 1:
            raise ValueError("say a number, a reason, or all")
        if self.number is not None:
            if self.completion is None or (self.newest, self.shown, self.older_than_seconds) != (None, None, None):
                raise ValueError("say the completion, too, whose letter has this number, and nothing else")
            return DeadSelection([self.number], completion_id=self.completion)
        if self.completion is not None or self.newest is None or self.shown is None:
            raise ValueError("say newest, the highest number that was shown, and shown, how many there were")
        return DeadSelection(reason=self.reason, until=self.newest, older_than_seconds=self.older_than_seconds)


async def refusal(queue: DeadLetters, order: Order) -> str | None:
    """Why the order is not to be carried out: what it is about is not what was shown; None if it is.

    Fewer letters than were shown are no reason: somebody else has dealt with the others.

    Raises:
        QueueError: the store does not answer.
    """
    if order.number is not None:
        async for _ in queue.dead_letters(order.selection()):
            return None
        return f"letter {order.number} is not there any more"
    counts = await queue.dead_reasons(order.newest)
    there = sum(count.letters for reason, count in counts.items() if order.reason in (None, reason))
    if there > (order.shown or 0):
        return f"there are {there:,} letters by now, and {order.shown:,} were shown: nothing was done; look again"
    return None
