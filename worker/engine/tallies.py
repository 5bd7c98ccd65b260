"""The numbers that a worker counts, which the page and the metrics read when they are asked."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from worker.api import OK, Answer
from worker.engine.clock import Clock
from worker.engine.outcome import Outcome
from worker.flow import Operation
from worker.queue import QueueError

# Seconds. Recorded updates took 0.2 to 6 s; by default the longest wait for an answer is a minute.
REQUEST_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
CHANGES_BUCKETS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
STORE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

_SUCCEEDED: dict[Operation, tuple[str, str, str]] = {"get": ("get", "2xx", ""), "update": ("update", "2xx", "")}

LATEST = 50


class Distribution:
    """How often a figure fell into each bucket.

    Args:
        bounds: upper bounds, inclusive, rising; one more bucket counts the values above.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Recorded(NamedTuple):
    """An outcome without its claim, to remember for a while: the claim's changes may be megabytes.

    Args:
        recorded_at: Unix time, seconds.
        applied, unchanged, dead, deferred, superseded: how many changes.
        why: the last dead letter's reason, or else the deferral.
    """

    recorded_at: float
    completion_id: str
    applied: int
    unchanged: int
    dead: int
    deferred: int
    why: str | None
    status: int | None
    duration_ms: float | None
    superseded: int = 0

    @classmethod
    def of(cls, recorded_at: float, outcome: Outcome) -> Self:
        """Sum up an outcome."""
        return cls(
            recorded_at,
            outcome.claim.completion_id,
            len(outcome.applied),
            len(outcome.unchanged),
            len(outcome.dead),
            len(outcome.deferred),
            outcome.dead[-1][1].reason if outcome.dead else outcome.deferral,
            outcome.status,
            outcome.duration_ms,
            len(outcome.superseded),
        )


class _Failing(NamedTuple):
    """A kind of call to the store that fails.

    Args:
        since, until: when the first failed call began and the last one ended; monotonic seconds.
        error: the last one's message.
    """

    since: float
    until: float
    error: str


@dataclass(slots=True, repr=False)
class Tallies:
    """Counts since the worker started.

    Args:
        outcomes: changes by (outcome, reason): applied, unchanged, superseded, dead with its reason, or retry, snoozed,
            released.
        requests: by (operation, status class, error type). The operation is ``update`` or ``get``. The class is
            ``2xx`` to ``5xx``, or ``none`` without an answer. The error type is empty after a success, otherwise
            ``transport`` or the verdict's kind.
        request_seconds: by operation.
        changes_per_request: changes folded into each update that was sent.
        store_seconds: by the queue's operation.
        store_errors: failed calls by the queue's operation.
        requests_retried: requests that were repeated after a failure, at once or with a later claim.
        stale: outcomes that the queue refused, since the lease had been lost.
        leftover: applied changes after which the service kept keys that they leave out.
        leases_lost: claims whose lease was lost.
        letters_expired: dead letters that were deleted for their age.
        latest: the last outcomes, the newest last.
    """

    clock: Clock = field(default_factory=Clock)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    request_seconds: dict[Operation, Distribution] = field(
        default_factory=lambda: {"get": Distribution(REQUEST_BUCKETS), "update": Distribution(REQUEST_BUCKETS)}
    )
    changes_per_request: Distribution = field(default_factory=lambda: Distribution(CHANGES_BUCKETS))
    store_seconds: dict[str, Distribution] = field(default_factory=dict)
    store_errors: Counter[str] = field(default_factory=Counter)
    requests_retried: int = 0
    stale: int = 0
    leases_lost: int = 0
    letters_expired: int = 0
    leftover: int = 0
    latest: deque[Recorded] = field(default_factory=lambda: deque(maxlen=LATEST))
    _store_failing: dict[str, _Failing] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Tallies [{self.requests.total()} requests, {self.outcomes.total()} changes]>"

    def request(self, operation: Operation, answer: Answer) -> None:
        """Count a request that has ended."""
        verdict = answer.verdict
        self.request_seconds[operation].observe(answer.duration_ms / 1_000)
        if verdict.kind is OK:  # as nearly all are
            self.requests[_SUCCEEDED[operation]] += 1
            return
        status_class = "none" if verdict.status is None else f"{verdict.status // 100}xx"
        error = "transport" if verdict.transport else verdict.kind.value
        self.requests[operation, status_class, error] += 1

    def recorded(self, batch: Sequence[Outcome]) -> None:
        """Count outcomes that are settled."""
        counts, applied, unchanged, superseded = self.outcomes, 0, 0, 0
        for outcome in batch:
            if outcome.applied:
                applied += len(outcome.applied)
                self.leftover += outcome.leftover
            if outcome.unchanged:
                unchanged += len(outcome.unchanged)
            if outcome.superseded:
                superseded += len(outcome.superseded)
            for _, death in outcome.dead:
                counts["dead", death.reason] += 1
            if outcome.deferral is not None:
                counts[outcome.deferral.value, ""] += len(outcome.deferred)
        for name, changes in (("applied", applied), ("unchanged", unchanged), ("superseded", superseded)):
            if changes:
                counts[name, ""] += changes
        now = self.clock.unix()
        self.latest.extend([Recorded.of(now, outcome) for outcome in batch[-LATEST:]])

    @contextmanager
    def store_call(self, operation: str) -> Iterator[None]:
        """A context around a call to the queue's store, which times it and counts a `QueueError` as a failure.

        On a full disk, a call that writes nothing succeeds. So a success is evidence for its own kind alone, and only a
        settlement for all. A claim in vain is none even for claims: `fails_no_more` says when they work again.
        """
        distribution = self.store_seconds.get(operation)
        if distribution is None:
            distribution = self.store_seconds[operation] = Distribution(STORE_BUCKETS)
        started = self.clock.monotonic()
        try:
            yield
        except QueueError as error:
            self.store_errors[operation] += 1
            before = self._store_failing.pop(operation, None)
            since = started if before is None else before.since
            self._store_failing[operation] = _Failing(since, self.clock.monotonic(), str(error))
            raise
        else:
            if operation == "settle":
                self._store_failing.clear()
            elif operation != "claim":
                self.fails_no_more(operation)
        finally:
            distribution.observe(self.clock.monotonic() - started)

    def fails_no_more(self, *operations: str) -> None:
        """Note that these kinds of call to the store have done their work, or have none left to do."""
        for operation in operations:
            self._store_failing.pop(operation, None)

    @property
    def store_error(self) -> str | None:
        """The message of the last failed call of a kind that still fails."""
        return next((each.error for each in reversed(self._store_failing.values())), None)

    @property
    def store_away_seconds(self) -> float:
        """For how long calls of one kind have failed: up to the last failure, as the next call may succeed."""
        return max((each.until - each.since for each in self._store_failing.values()), default=0.0)
