"""What a run of the worker is told, and what it tells in the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.api import RetryPolicy
from worker.engine.blame import Rules, Semantics
from worker.engine.totals import Totals
from worker.flow import Cause
from worker.queue import Standstill

# How long a completion may be missing: somebody waits for a drain, and the recorded lags are 1 to 6 s; but an id can be
# known from the first chunk of a stream, long before its completion is stored.
DRAIN_GRACE_SECONDS = 120.0
DAEMON_GRACE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker behaves. Times are in seconds.

    Args:
        drain: end when nothing is left in the queue, due or not.
        max_duration_seconds: end after so long, whatever is left.
        halt_timeout_seconds: how long a drain waits while nothing gets through.
        not_found_grace_seconds: None: two minutes for a drain, fifteen for a daemon.
        dead_retention_seconds: how old a dead letter may grow; None: as old as it gets.
        keep_seconds: how long is remembered what was applied; 0: nothing is.
        give_up_after_seconds, semantics, read_lag_seconds: see `Rules`.
    """

    max_concurrency: int = 64
    requests_per_minute: float | None = None
    request_timeout_seconds: float = 60.0
    lease_seconds: float = 300.0
    batch_size: int = 256
    max_attempts: int = 8
    give_up_after_seconds: float = 21_600.0
    not_found_grace_seconds: float | None = None
    semantics: Semantics = "unknown"
    read_lag_seconds: float = 60.0
    halt_timeout_seconds: float = 60.0
    shutdown_grace_seconds: float = 25.0
    dead_retention_seconds: float | None = None
    keep_seconds: float = 604_800.0
    log_values: bool = False
    drain: bool = False
    max_duration_seconds: float | None = None
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def rules(self) -> Rules:
        """When a change is given up."""
        grace = self.not_found_grace_seconds
        if grace is None:
            grace = DRAIN_GRACE_SECONDS if self.drain else DAEMON_GRACE_SECONDS
        return Rules(self.max_attempts, self.give_up_after_seconds, grace, self.semantics, self.read_lag_seconds)


class Ending(StrEnum):
    """Why a run ended."""

    DRAINED = "drained"
    STOPPED = "stopped"
    MAX_DURATION = "max_duration"
    HALTED = "halted"
    OUTAGE = "outage"
    STUCK = "stuck"  # all that is left has failed
    CLOSED = "closed"  # the service asks to wait for longer than a drain does
    RESULTS_LOST = "results_lost"  # the file for results takes nothing
    PAUSED = "paused"  # somebody has paused the queue, and a drain does not wait for the end of that
    STORE_AWAY = "store_away"  # the store takes nothing for longer than a drain waits
    FAILED = "failed"  # a part of the worker has died


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Args:
        reason: why everything was halted, if that ended it.
        cause: the same, with the service's own words.
        left: what is left because it failed: the error, by completion; the first few.
        closed_for_seconds: how much longer the service asked to wait when the run ended.
        paused: by whom and why the queue is paused, if that ended the run.
        empty: whether the queue was left with nothing in it.
        requests: sent to the service, throttled ones included.
    """

    ending: Ending
    reason: str | None
    empty: bool
    totals: Totals
    requests: int
    throttled: int
    seconds: float
    cause: Cause | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    closed_for_seconds: float = 0.0
    paused: Standstill | None = None
