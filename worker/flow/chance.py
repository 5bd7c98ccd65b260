"""Refusals by chance: those that a lower rate would not have spared.

A limit that is met refuses what comes next, too. So a refusal at a rate that was known to be allowed, or while none is
known, is in doubt, and what is sent after it decides: some that get through acquit the rate; one that is refused as
well confirms it. Where no delay is asked for, sending goes on meanwhile.
"""

from dataclasses import dataclass

from worker.flow.course import Course
from worker.flow.tuning import TUNING


@dataclass(slots=True)
class Doubt:
    """A refusal that may be one by chance, and what was known before it.

    Args:
        refused_at: when it was sent.
        until: what is sent later shows nothing: the service may have saved up while it kept everybody waiting.
        course, cycle_from: of the pacer.
        passed: how many got through that were sent after it.
    """

    refused_at: float
    until: float
    course: Course | None
    cycle_from: float
    passed: int = 0


class Chance:
    """Tells refusals by chance from a limit. Times are in seconds; it reads no clock.

    A limit cannot hide behind it: where more than some in a hundred are refused, nothing is chance; and a refusal at or
    beyond the limit that was found is one only as long as those below it were, too.
    """

    __slots__ = ("_doubt", "_proven", "_refusals")

    def __init__(self) -> None:
        self.limit_met()
        self._refusals = TUNING.refusals_at_first

    def __repr__(self) -> str:
        return f"<Chance [{self._refusals:.1f} refusals, {'proven' if self._proven else 'not proven'}]>"

    def limit_met(self) -> None:
        """A refusal was about the rate, here or at another worker: no doubt is left."""
        self._doubt: Doubt | None = None
        self._refusals = 1.0  # up with each refusal, slowly down with what gets through
        self._proven = False  # one below the limit was by chance, and the limit was not met since

    def is_open(self, sent_at: float) -> bool:
        """Whether what becomes of a request that was sent then settles a doubt."""
        if self._doubt is not None and sent_at > self._doubt.until:
            self._doubt = None
        return self._doubt is not None

    def refused(self, course: Course | None, per_second: float) -> bool:
        """A request was refused: whether that may be chance.

        Args:
            course: what the limit is taken for.
            per_second: what was sent of late: where that is little, nothing decides soon.
        """
        self._refusals += 1.0
        possible = course is None or (per_second >= TUNING.doubtful_per_second and (self._proven or course.is_early))
        if possible and self._refusals <= (TUNING.most_refusals_proven if self._proven else TUNING.most_refusals):
            return True
        self.limit_met()
        return False

    def doubt(self, doubt: Doubt) -> None:
        """Wait for what is sent after a refusal."""
        self._doubt = doubt

    def accepted(self, sent_at: float) -> Doubt | None:
        """A request got through that was sent then: the doubt that it settles, or None."""
        self._refusals = max(0.0, self._refusals - TUNING.allowed_share)
        doubt = self._doubt
        if doubt is None or not doubt.refused_at < sent_at <= doubt.until:
            return None
        doubt.passed += 1
        if doubt.passed < TUNING.doubts:
            return None
        self._doubt = None
        self._proven |= doubt.course is not None and not doubt.course.seeks
        return doubt
