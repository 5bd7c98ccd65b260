"""A run's figures for people: the tallies, summed up."""

from collections import Counter
from dataclasses import dataclass

from worker.engine.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Totals:
    """The tallies summed up so far: numbers of changes, unless a name says otherwise."""

    tallies: Tallies

    @property
    def applied(self) -> int:
        return self.tallies.outcomes["applied", ""]

    @property
    def unchanged(self) -> int:
        return self.tallies.outcomes["unchanged", ""]

    @property
    def superseded(self) -> int:
        """Changes that were not sent, since one with a newer `as_of` was applied."""
        return self.tallies.outcomes["superseded", ""]

    @property
    def reasons(self) -> Counter[str]:
        """Dead letters by reason."""
        outcomes = self.tallies.outcomes
        return Counter({reason: count for (outcome, reason), count in outcomes.items() if outcome == "dead" and count})

    @property
    def dead(self) -> int:
        return self.reasons.total()

    @property
    def changes(self) -> int:
        """Changes with a final outcome."""
        return self.applied + self.unchanged + self.superseded + self.dead

    @property
    def retries(self) -> int:
        """Requests that were repeated after a failure."""
        return self.tallies.requests_retried

    @property
    def leftover(self) -> int:
        """Applied changes after which the service kept keys that they leave out."""
        return self.tallies.leftover

    @property
    def stale(self) -> int:
        """Outcomes that the queue refused, since the lease had been lost."""
        return self.tallies.stale
