"""What a run has done so far, counted."""

from collections import Counter
from dataclasses import dataclass, field

from worker.engine.outcome import Left, Outcome


@dataclass(slots=True)
class Totals:
    """Counts of changes, unless a name says otherwise.

    Args:
        reasons: dead letters by reason.
        retries: requests and claims that were tried again after a failure.
        stale: outcomes that the queue refused, since the lease had been lost.
    """

    applied: int = 0
    unchanged: int = 0
    dead: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    stale: int = 0

    @property
    def changes(self) -> int:
        """Changes that are done with, one way or another."""
        return self.applied + self.unchanged + self.dead

    def add(self, outcome: Outcome) -> None:
        """Count a recorded outcome."""
        self.applied += len(outcome.applied)
        self.unchanged += len(outcome.unchanged)
        self.dead += len(outcome.dead)
        for _, death in outcome.dead:
            self.reasons[death.reason] += 1
        if outcome.kind is Left.RETRY:
            self.retries += 1
