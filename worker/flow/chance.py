"""Refusals by chance: those that a lower rate would not have spared.

A limit that is met refuses the next requests too. So a refusal at a rate that is known to be allowed is in doubt. The
requests that were sent after it decide: where some get through, the rate stays as it was; where one is refused as
well, the refusal was about the rate. Without a delay to keep, sending goes on meanwhile.
"""

import msgspec

from worker.flow.course import Course
from worker.flow.tuning import TUNING


class Doubt(msgspec.Struct):
    """A refusal that may be one by chance, and what was known before it.

    Args:
        refused_at: when the request was sent.
        until: a request that was sent later decides nothing: the service may have saved up during the delay.
        course, cycle_from: the pacer's, before the refusal.
        passed: how many requests got through that were sent after it.
    """

    refused_at: float
    until: float
    course: Course
    cycle_from: float
    passed: int = 0


class Chance:
    """Tells refusals by chance from a limit. It reads no clock; times are in seconds.

    No limit can hide behind chance. Where more than some in a hundred are refused, no refusal is chance. And a refusal
    beyond the limit that was found is chance only after one below that limit was.
    """

    __slots__ = ("_doubt", "_proven", "_refusals")

    def __init__(self) -> None:
        self.limit_met()

    def __repr__(self) -> str:
        return f"<Chance [{self._refusals:.1f} refusals, {'proven' if self._proven else 'not proven'}]>"

    def limit_met(self) -> None:
        """A refusal was about the rate, here or at another worker: no doubt is left."""
        self._doubt: Doubt | None = None
        self._refusals = 1.0  # one more with each refusal, a part of one less with each request that gets through
        self._proven = False  # a refusal below the limit was chance, and since then the limit was not met

    def is_open(self, sent_at: float) -> bool:
        """Whether the answer to a request that was sent then settles a doubt."""
        if self._doubt is not None and sent_at > self._doubt.until:
            self._doubt = None
        return self._doubt is not None

    def refused(self, course: Course, per_second: float) -> bool:
        """Whether a refusal may be chance.

        Args:
            course: of the pacer.
            per_second: the rate of late; at a low rate, it takes too long until other requests decide.
        """
        self._refusals += 1.0
        possible = per_second >= TUNING.doubtful_per_second and (self._proven or course.is_early)
        if possible and self._refusals <= (TUNING.most_refusals_proven if self._proven else TUNING.most_refusals):
            return True
        self.limit_met()
        return False

    def doubt(self, doubt: Doubt) -> None:
        """Let the requests decide that are sent after a refusal."""
        self._doubt = doubt

    def accepted(self, sent_at: float) -> Doubt | None:
        """A request got through; returns the doubt about an earlier refusal that was chance, as this one decides."""
        if self._refusals:
            self._refusals = max(0.0, self._refusals - TUNING.allowed_share)
        doubt = self._doubt
        if doubt is None or not doubt.refused_at < sent_at <= doubt.until:
            return None
        doubt.passed += 1
        if doubt.passed < TUNING.doubts:
            return None
        self._doubt = None
        self._proven |= not doubt.course.seeks
        return doubt
