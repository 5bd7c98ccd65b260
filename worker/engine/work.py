"""A claim in this worker's hands, and what can interrupt the task that works on it."""

import asyncio
from enum import Enum, auto

from worker.queue.base import Claim


class Interruption(Enum):
    """Why somebody else stopped the work on a claim."""

    LEASE_LOST = auto()  # another worker may hold it: not a word more about it
    RELEASED = auto()  # the worker stops, and no request of it is in flight
    CUT_OFF = auto()  # the worker stops, and the grace for its request is over


class Work:
    """One claim, from the moment it is leased until the queue has stored its outcome.

    Args:
        claimed_at: loop time just before the claim was asked for.
        deadline: loop time at which the lease ends, unless it is extended.

    `failures` counts its failed attempts, `in_flight` says whether a request of it is under way.
    """

    __slots__ = ("_task", "claim", "claimed_at", "deadline", "failures", "in_flight", "interruption")

    def __init__(self, claim: Claim, claimed_at: float, deadline: float) -> None:
        self.claim = claim
        self.claimed_at = claimed_at
        self.deadline = deadline
        self.failures = 0
        self.in_flight = False
        self.interruption: Interruption | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = self.interruption.name.lower() if self.interruption else "in flight" if self.in_flight else "waiting"
        return f"<Work {self.claim.completion_id} [lease {self.claim.lease}, {state}]>"

    def begin(self, task: asyncio.Task[None]) -> None:
        """This task works on it from here; `interrupt` cancels it."""
        self._task = task

    def end(self) -> None:
        """Nobody works on it any more; from here an interruption finds nothing to cancel."""
        self._task = None

    def interrupt(self, why: Interruption) -> None:
        """Stop the work on it; the first interruption stands."""
        if self.interruption is None:
            self.interruption = why
            if self._task is not None:
                self._task.cancel()

    def was_interrupted(self) -> bool:
        """Whether the cancellation that was just caught is an interruption, and not the end of the whole worker."""
        return self.interruption is not None and self._task is not None and self._task.uncancel() == 0
