"""Orders to replay or purge dead letters: exactly those that the page showed, and no others."""

from typing import Annotated

import msgspec

from worker.queue import DeadLetters, DeadSelection


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters a user means: exactly one of number, reason and all is given.

    Args:
        completion: with a number, the completion of the letter that was shown.
        newest: with a reason or all, the highest number that was shown.
        shown: with a reason or all, how many letters were shown.
        older_than_seconds: with a reason or all, only letters that died longer ago.
    """

    number: int | None = None
    completion: str | None = None
    reason: str | None = None
    all: bool = False
    newest: int | None = None
    shown: int | None = None
    older_than_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None

    def selection(self) -> DeadSelection:
        """Convert the order to the queue's type.

        Raises:
            ValueError: the order is incomplete or contradictory.
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
    """Return why the order is refused: the letters differ from those shown. None if they match.

    Fewer letters than shown are no reason: another user has dealt with the rest.

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
