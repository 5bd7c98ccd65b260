"""A run's figures for people: the tallies, summed up."""

from collections import Counter
from dataclasses import dataclass

from worker.engine.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Totals:
    """What has been done so far, in changes unless a name says otherwise: a view of the tallies, which count."""

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
        """Changes that are done with, one way or another."""
        return self.applied + self.unchanged + self.superseded + self.dead

    @property
    def retries(self) -> int:
        """Requests that were made again after a failure."""
        return self.tallies.requests_retried

    @property
    def leftover(self) -> int:
        """Applied changes of which the service kept what they were to replace."""
        return self.tallies.leftover

    @property
    def stale(self) -> int:
        """Outcomes that the queue refused, since the lease had been lost."""
        return self.tallies.stale
