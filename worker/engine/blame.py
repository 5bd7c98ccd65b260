"""Whose fault a failure is: counts failures, rejections and absences against a claim's changes, or not."""

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
    """When a change is given up, and how the service behaves. Times are in seconds.

    Args:
        max_attempts: counted failures of a change before it dies.
        give_up_after_seconds: time since its first failure before it dies. A change dies when both are reached.
        not_found_grace_seconds: how long its completion may be missing, from the later of enqueue and first 404.
        semantics: what an update does to keys that it does not name: it keeps them (merge), or drops them (replace).
        read_lag_seconds: how long after an update the service may still show the metadata from before.
    """

    max_attempts: int
    give_up_after_seconds: float
    not_found_grace_seconds: float
    semantics: Semantics = "unknown"
    read_lag_seconds: float = 60.0


class Blame:
    """Keeps the failures of one claim's changes, and decides which count against them.

    A failure counts only if another completion got through, with the same kind of call, since the previous failure.
    So an outage, a bad key or a wrong URL never counts. The queue keeps the record with each change.

    Args:
        flow: knows which completions got through.
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
        """The most counted failures of any of the changes."""
        return self._most(lambda each: each.counted) if self._work.has_trials else 0

    @property
    def failures(self) -> int:
        """The most failures of any of the changes, counted or not."""
        return self._most(lambda each: each.failures) if self._work.has_trials else 0

    @property
    def is_guilty(self) -> bool:
        """Whether others got through while this completion failed. Then its failures are no evidence of an outage."""
        return self._work.has_trials and any(each.counted for each in self._work.trials.values())

    def failed(self, operation: Operation, *, envelope: bool, is_probe: bool) -> None:
        """Record a failed request.

        Args:
            envelope: the service answered in its own error format. Then successes at other workers count, too.
            is_probe: the request was a probe. A probe is expected to fail, so it never counts.
        """
        for trials in self._all():
            others = trials.failed_at and self._others_got_through(operation, trials.failed_at, elsewhere=envelope)
            if others and not is_probe:
                trials.counted += 1
            trials.failures += 1
            trials.failed_at = self._store_time()
            trials.first_failed_at = trials.first_failed_at or trials.failed_at

    def failed_by_us(self) -> None:
        """Record a bug that this claim meets. It counts like any failure: only if other claims get through."""
        self.failed("update", envelope=False, is_probe=False)

    def exhausted(self, numbers: Iterable[int]) -> list[int]:
        """The changes with enough counted failures over a long enough time."""
        rules, now = self._rules, self._store_time()
        return [
            number
            for number in numbers
            if (trials := self._work.trials[number]).counted >= rules.max_attempts
            and now - trials.first_failed_at >= rules.give_up_after_seconds
        ]

    def absent(self, numbers: Iterable[int], operation: Operation, *, certain: bool) -> tuple[list[int], float | None]:
        """Record that the service has no such completion.

        Args:
            certain: the answer names the completion. Otherwise another completion has to get through first.

        Returns:
            the changes whose grace is over, and the fewest seconds of grace that any other change has left. The seconds
            are None if no change has grace left. A change whose absence is not proved yet is in neither.
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
        """How long the completion has been missing, by the records of this claim's changes."""
        since = [each.first_absent_at for each in self._work.trials.values() if each.first_absent_at]
        return self._store_time() - min(since) if since else 0.0

    def rejected(self, numbers: Iterable[int], operation: Operation = "update") -> list[int]:
        """Record a rejection; return the changes whose previous rejection was followed by another's success."""
        alone = []
        for number in numbers:
            trials = self._touch(number)
            trials.failures += 1
            if trials.rejected_at and self._others_got_through(operation, trials.rejected_at, elsewhere=True):
                alone.append(number)
            trials.rejected_at = self._store_time()
        return alone

    def undecided(self, numbers: Iterable[int]) -> None:
        """Record an ambiguous answer: nothing counts, only the backoff grows."""
        for number in numbers:
            self._touch(number).failures += 1

    def not_persisted(self, numbers: Iterable[int]) -> list[int]:
        """Record a success that shows other metadata; return the changes for which this happened before."""
        again = []
        for number in numbers:
            trials = self._touch(number)
            trials.unpersisted += 1
            if trials.unpersisted > 1:
                again.append(number)
        return again

    @property
    def was_not_persisted(self) -> bool:
        """Whether an earlier update of these changes succeeded but showed other metadata."""
        return self._work.has_trials and any(each.unpersisted for each in self._work.trials.values())

    @property
    def was_throttled(self) -> bool:
        """Whether this completion was throttled and has not passed since."""
        return self._work.has_trials and any(each.throttled_at for each in self._work.trials.values())

    def throttled(self, operation: Operation) -> int:
        """Record an answer 429; return how many came after other completions had got through."""
        for trials in self._all():
            if trials.throttled_at and self._others_got_through(operation, trials.throttled_at, elsewhere=False):
                trials.throttles += 1
            trials.throttled_at = self._store_time()
        return self._most(lambda each: each.throttles)

    def passed(self) -> None:
        """Record a success: the count of answers 429 starts anew."""
        if self._work.has_trials:
            for number, trials in self._work.trials.items():
                if trials.throttled_at:
                    self._touch(number).throttles, trials.throttled_at = 0, 0.0

    def records(self, numbers: Collection[int]) -> list[tuple[int, str]]:
        """The records that changed, as (change number, text), for the store to keep."""
        return [(number, self._work.trials[number].text()) for number in numbers if number in self._changed]

    def others(self, operation: Operation) -> int:
        """How many requests of this kind got through in this run."""
        return self._flow.gate.successes(operation)

    def _others_got_through(self, operation: Operation, since: float, *, elsewhere: bool) -> bool:
        """Ask the flow, whose clock differs from the store's.

        Args:
            since: Unix seconds by the store's clock.
            elsewhere: successes at other workers count, too.
        """
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
