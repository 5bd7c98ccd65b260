"""The options of a run, and its summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.api import RetryPolicy
from worker.engine.blame import Rules, Semantics
from worker.engine.totals import Totals
from worker.flow import Cause
from worker.queue import Standstill

# How long a completion may be missing. The recorded lags are 1 to 6 s, and people wait for a drain. But the first chunk
# of a stream names the id long before the completion is stored, so a daemon waits for longer.
DRAIN_GRACE_SECONDS = 120.0
DAEMON_GRACE_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker behaves. Times are in seconds.

    Args:
        drain: end when nothing is left in the queue, due or not.
        max_duration_seconds: end after so long, even if changes are left; None for no limit.
        halt_timeout_seconds: how long a drain waits while nothing gets through.
        not_found_grace_seconds: see `Rules`; None for two minutes in a drain and fifteen in a daemon.
        dead_retention_seconds: age at which dead letters are deleted; None to keep them.
        keep_seconds: how long the queue remembers applied changes; 0 for not at all.
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
    STUCK = "stuck"  # all changes that are left have failed
    CLOSED = "closed"  # the service asks for a longer wait than a drain makes
    RESULTS_LOST = "results_lost"  # the file for results cannot be written
    PAUSED = "paused"  # the queue is paused, and a drain does not wait for a resume
    STORE_AWAY = "store_away"  # the store does not answer for longer than a drain waits
    FAILED = "failed"  # a loop of the worker has died


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Args:
        reason: the reason of the halt, if a halt ended the run.
        cause: the same, with the service's error message.
        left: if the run is stuck: some completions that failed, each with its error.
        closed_for_seconds: how much longer the service asks to wait.
        paused: who paused the queue, and why, if a pause ended the run.
        empty: whether the queue is empty.
        requests: requests sent to the service, throttled ones included.
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
