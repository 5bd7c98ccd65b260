"""A claim that this worker holds, and the interruptions of the task that works on it."""

import asyncio
import sys
from enum import Enum, auto

from worker.engine.trials import Trials, trials_of
from worker.queue import Claim

BYTES_OF_A_CHANGE = 512  # memory of one change besides its metadata


class Interruption(Enum):
    """Why the work on a claim was interrupted."""

    LEASE_LOST = auto()  # another worker may hold the claim, so that nothing is recorded
    RELEASED = auto()  # the worker stops, and no request for the claim is in flight
    CUT_OFF = auto()  # the worker stops, and the grace for the request is over


class Work:
    """One claim, from the moment it is leased until the queue has stored its outcome.

    Args:
        claimed_at: when the claim was asked for, by the worker's monotonic clock.
        deadline: when the lease ends, by the same clock, unless it is extended.
        is_urgent: whether it was claimed as urgent, and goes before others.

    `in_flight` says whether a request for it is under way. `is_probe` says whether it tests a service that halted the
    work. `has_trials` says whether its changes have met failures, now or before. `size_bytes` is its memory. `task` is
    the one that works on it now, which an interruption cancels.
    """

    __slots__ = (
        "_is_begun",
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
        "task",
    )

    def __init__(self, claim: Claim, claimed_at: float, deadline: float, *, is_urgent: bool = False) -> None:
        self.claim = claim
        self.claimed_at = claimed_at
        self.deadline = deadline
        size, has_trials = 0, False
        for change in claim.changes:
            size += BYTES_OF_A_CHANGE + sys.getsizeof(change.metadata)  # with one emoji, four bytes a character
            if change.trials is not None:
                has_trials = True
        self.size_bytes = size
        self.has_trials = has_trials  # an attribute, since each request reads it several times
        self.in_flight = False
        self.is_probe = False
        self.is_urgent = is_urgent
        self.interruption: Interruption | None = None
        self.task: asyncio.Task[None] | None = None
        self._trials: dict[int, Trials] | None = None
        self._is_begun = False

    def __repr__(self) -> str:
        state = self.interruption.name.lower() if self.interruption else "in flight" if self.in_flight else "waiting"
        return f"<Work {self.claim.completion_id} [lease {self.claim.lease}, {state}]>"

    @property
    def trials(self) -> dict[int, Trials]:
        """The records of its changes' failures, by number; decoded on first use, since most changes have none."""
        if self._trials is None:
            self._trials = {change.number: trials_of(change) for change in self.claim.changes}
            self.has_trials = True
        return self._trials

    def is_tried_again(self) -> bool:
        """Whether the next request repeats one that failed under an earlier claim: only the first call may say so."""
        is_first, self._is_begun = not self._is_begun, True
        return is_first and self.has_trials

    def store_time(self, now: float) -> float:
        """Unix seconds by the store's clock, when the worker's monotonic clock shows `now`."""
        claim = self.claim
        return claim.changes[0].enqueued_at + claim.age_seconds + now - self.claimed_at

    def interrupt(self, why: Interruption) -> None:
        """Stop the work on it. Only the first interruption counts."""
        if self.interruption is None:
            self.interruption = why
            if self.task is not None:
                self.task.cancel()

    def was_interrupted(self) -> bool:
        """Whether the cancellation just caught is an interruption of this work, and not the end of the worker."""
        return self.interruption is not None and self.task is not None and self.task.uncancel() == 0
