"""Who is to blame: what a failure, a rejection or an absence says about the changes of one claim, and what not."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from worker.engine.trials import Trials
from worker.engine.work import Work
from worker.flow import Flow, Operation

_FEWEST_ABSENCES = 3


Semantics = Literal["unknown", "merge", "replace"]


@dataclass(frozen=True, slots=True)
class Rules:
    """When a change is given up, and what is believed of the service. Times are in seconds.

    Args:
        max_attempts: counted failures after which a change is dead,
        give_up_after_seconds: if so much time has passed since its first failure, too.
        not_found_grace_seconds: how long its completion may be missing, from its enqueue or the first 404 on.
        semantics: what an update does to keys that it does not name: they stay (merge), go (replace), or who knows.
        read_lag_seconds: how long after an update the service may still show what was there before.
    """

    max_attempts: int
    give_up_after_seconds: float
    not_found_grace_seconds: float
    semantics: Semantics = "unknown"
    read_lag_seconds: float = 60.0


class Blame:
    """Keeps the record of what one claim's changes meet, by evidence that is relative.

    A failure counts against a completion only where another one got through, with the same kind of call, after the
    failure before; so an outage, a bad key or a wrong URL never counts. What counts is kept with each change.

    Args:
        flow: knows who got through.
        clock: monotonic seconds, the flow's.
    """

    def __init__(self, work: Work, flow: Flow, rules: Rules, clock: Callable[[], float]) -> None:
        self._work = work
        self._flow = flow
        self._rules = rules
        self._clock = clock
        self._changed: set[int] = set()

    @property
    def attempts(self) -> int:
        """The most failures that count against one of the changes."""
        return self._most(lambda each: each.counted) if self._work.has_trials else 0

    @property
    def failures(self) -> int:
        """The most failures that one of the changes has met, counted or not."""
        return self._most(lambda each: each.failures) if self._work.has_trials else 0

    @property
    def is_guilty(self) -> bool:
        """Whether others got through while this completion failed: its failures say nothing about others."""
        return self._work.has_trials and any(each.counted for each in self._work.trials.values())

    def failed(self, operation: Operation, *, envelope: bool, is_probe: bool) -> None:
        """A request failed.

        Args:
            envelope: the failure came in the service's own words, so that what gets through elsewhere counts, too.
            is_probe: it was expected to fail: nothing is counted.
        """
        for trials in self._all():
            others = trials.failed_at and self._others_got_through(operation, trials.failed_at, elsewhere=envelope)
            if others and not is_probe:
                trials.counted += 1
            trials.failures += 1
            trials.failed_at = self._store_time()
            trials.first_failed_at = trials.first_failed_at or trials.failed_at

    def failed_by_us(self) -> None:
        """A fault of our own met this claim: where it is met by this one alone, it counts as any other failure."""
        self.failed("update", envelope=False, is_probe=False)

    def exhausted(self, numbers: Iterable[int]) -> list[int]:
        """Those of the changes that have failed often enough, and for long enough, while others got through."""
        rules, now = self._rules, self._store_time()
        return [
            number
            for number in numbers
            if (trials := self._work.trials[number]).counted >= rules.max_attempts
            and now - trials.first_failed_at >= rules.give_up_after_seconds
        ]

    def absent(self, numbers: Iterable[int], operation: Operation, *, certain: bool) -> tuple[list[int], float | None]:
        """The service has no such completion.

        Args:
            certain: it said so of this completion; else others have to get through before it is believed.

        Returns:
            the changes whose grace is over, and for those with grace how many seconds of it are left at least, None if
            there are none. What is not to be believed yet is in neither.
        """
        now, over, left = self._store_time(), list[int](), list[float]()
        for number in numbers:
            trials = self._touch(number)
            trials.absences += 1
            trials.first_absent_at = trials.first_absent_at or now
            since = max(trials.first_absent_at, self._enqueued_at(number))
            grace = since + self._rules.not_found_grace_seconds - now
            if grace > 0.0 or trials.absences < _FEWEST_ABSENCES:
                left.append(max(0.0, grace))
            elif certain or self._others_got_through(operation, trials.first_absent_at, elsewhere=False):
                over.append(number)
        return over, min(left, default=None)

    def absent_seconds(self) -> float:
        """How long the completion has been missing, as far as this claim's changes know."""
        since = [each.first_absent_at for each in self._work.trials.values() if each.first_absent_at]
        return self._store_time() - min(since) if since else 0.0

    def rejected(self, numbers: Iterable[int], operation: Operation = "update") -> list[int]:
        """The service does not take these changes; give those after whose last rejection others got through."""
        alone = []
        for number in numbers:
            trials = self._touch(number)
            trials.failures += 1
            if trials.rejected_at and self._others_got_through(operation, trials.rejected_at, elsewhere=True):
                alone.append(number)
            trials.rejected_at = self._store_time()
        return alone

    def undecided(self, numbers: Iterable[int]) -> None:
        """What the service did can be read in more than one way: only the backoff grows."""
        for number in numbers:
            self._touch(number).failures += 1

    def not_persisted(self, numbers: Iterable[int]) -> list[int]:
        """The service says done, and shows something else; give the changes that met this before."""
        again = []
        for number in numbers:
            trials = self._touch(number)
            trials.unpersisted += 1
            if trials.unpersisted > 1:
                again.append(number)
        return again

    @property
    def was_not_persisted(self) -> bool:
        """Whether an update of these changes was answered with something else before."""
        return self._work.has_trials and any(each.unpersisted for each in self._work.trials.values())

    @property
    def was_throttled(self) -> bool:
        """Whether this completion was throttled, and has not passed since."""
        return self._work.has_trials and any(each.throttled_at for each in self._work.trials.values())

    def throttled(self, operation: Operation) -> int:
        """This completion was throttled; give how often it was so again after others had got through."""
        for trials in self._all():
            if trials.throttled_at and self._others_got_through(operation, trials.throttled_at, elsewhere=False):
                trials.throttles += 1
            trials.throttled_at = self._store_time()
        return self._most(lambda each: each.throttles)

    def passed(self) -> None:
        """It was not throttled this time."""
        if self._work.has_trials:
            for number, trials in self._work.trials.items():
                if trials.throttled_at:
                    self._touch(number).throttles, trials.throttled_at = 0, 0.0

    def records(self, numbers: Collection[int]) -> list[tuple[int, str]]:
        """What the store is to keep with those of these changes whose record has changed."""
        return [(number, self._work.trials[number].text()) for number in numbers if number in self._changed]

    def others(self, operation: Operation) -> int:
        """How many requests got through while this claim's failed: those of this run."""
        return self._flow.gate.successes(operation)

    def _others_got_through(self, operation: Operation, since: float, *, elsewhere: bool) -> bool:
        """The same question to the flow, whose clock is another one than the store's."""
        by_flow = self._clock() - (self._store_time() - since)
        return self._flow.gate.others_got_through(
            operation, self._work.claim.completion_id, by_flow, elsewhere=elsewhere
        )

    def _store_time(self) -> float:
        return self._work.store_time(self._clock())

    def _enqueued_at(self, number: int) -> float:
        return next(change.enqueued_at for change in self._work.claim.changes if change.number == number)

    def _touch(self, number: int) -> Trials:
        self._changed.add(number)
        return self._work.trials[number]

    def _all(self) -> list[Trials]:
        self._changed.update(self._work.trials)
        return list(self._work.trials.values())

    def _most(self, figure: Callable[[Trials], int]) -> int:
        return max(map(figure, self._work.trials.values()))
