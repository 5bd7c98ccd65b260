"""A claim in this worker's hands, and what can interrupt the task that works on it."""

import asyncio
from enum import Enum, auto

from worker.engine.trials import Trials, trials_of
from worker.queue import Claim
from worker.queue.text import size_bytes

BYTES_OF_A_CHANGE = 512  # what one takes in memory besides its metadata


class Interruption(Enum):
    """Why somebody else stopped the work on a claim."""

    LEASE_LOST = auto()  # another worker may hold it: not a word more about it
    RELEASED = auto()  # the worker stops, and no request of it is in flight
    CUT_OFF = auto()  # the worker stops, and the grace for its request is over


class Work:
    """One claim, from the moment it is leased until the queue has stored its outcome.

    Args:
        claimed_at: the time just before the claim was asked for, by the worker's monotonic clock.
        deadline: when the lease ends, by the same clock, unless it is extended.

        is_urgent: whether it was claimed as such, and goes before others.

    `in_flight` says whether a request of it is under way, `is_probe` whether it tries if a halted service works again,
    `has_trials` whether anything was met by its changes, now or before; `size_bytes` is what it takes in memory.
    """

    __slots__ = (
        "_is_begun",
        "_task",
        "_trials",
        "claim",
        "claimed_at",
        "deadline",
        "has_trials",
        "in_flight",
        "interruption",
        "is_probe",
        "is_urgent",
        "size_bytes",
    )

    def __init__(self, claim: Claim, claimed_at: float, deadline: float, *, is_urgent: bool = False) -> None:
        self.claim = claim
        self.claimed_at = claimed_at
        self.deadline = deadline
        self.size_bytes = BYTES_OF_A_CHANGE * len(claim.changes)
        self.has_trials = False  # an attribute, since it is asked for several times a request
        for change in claim.changes:
            self.size_bytes += size_bytes(change.metadata)
            if change.trials is not None:
                self.has_trials = True
        self.in_flight = False
        self.is_probe = False
        self.is_urgent = is_urgent
        self.interruption: Interruption | None = None
        self._task: asyncio.Task[None] | None = None
        self._trials: dict[int, Trials] | None = None
        self._is_begun = False

    def __repr__(self) -> str:
        state = self.interruption.name.lower() if self.interruption else "in flight" if self.in_flight else "waiting"
        return f"<Work {self.claim.completion_id} [lease {self.claim.lease}, {state}]>"

    @property
    def trials(self) -> dict[int, Trials]:
        """What its changes met before, by number; read when it is first asked for, as most have met nothing."""
        if self._trials is None:
            self._trials = {change.number: trials_of(change) for change in self.claim.changes}
            self.has_trials = True
        return self._trials

    def is_tried_again(self) -> bool:
        """Whether its first request repeats one that failed under an earlier claim; of its further ones, no."""
        is_first, self._is_begun = not self._is_begun, True
        return is_first and self.has_trials

    def store_time(self, now: float) -> float:
        """The store's clock, Unix seconds, when the worker's shows `now`."""
        claim = self.claim
        return claim.changes[0].enqueued_at + claim.age_seconds + now - self.claimed_at

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
