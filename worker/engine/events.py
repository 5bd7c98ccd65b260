"""One log event per outcome, in the shape that people script against."""

from collections.abc import Sequence
from typing import Any

import structlog

from worker.engine.outcome import Deferral, Outcome
from worker.queue import QueuedChange


def log_outcome(logger: structlog.typing.FilteringBoundLogger, outcome: Outcome, *, log_values: bool) -> None:
    """Log what became of a claim: one event for each kind of end that its changes met.

    Args:
        log_values: whether the events show metadata values; keys they always show.
    """
    fields: dict[str, Any] = {
        "completion_id": outcome.claim.completion_id,
        "keys": outcome.keys,
        "status": outcome.status,
        "request_id": outcome.request_id,
        "duration_ms": outcome.duration_ms,
        "queue_lag_ms": outcome.lag_ms,
    }
    fields.update(outcome.trace)
    if log_values:
        fields["metadata"] = outcome.metadata
    if outcome.applied:
        extra: dict[str, Any] = {"attempt": outcome.attempts + 1}
        if outcome.leftover_keys:
            extra["leftover_keys"] = outcome.leftover_keys
        if not outcome.verified:
            extra["verified"] = False
        logger.info("change.applied", **fields, **_about(outcome.applied), **extra)
    if outcome.unchanged:
        logger.info("change.unchanged", **fields, **_about(outcome.unchanged), attempt=outcome.attempts + 1)
    for change, death in outcome.dead:
        logger.warning(
            "change.dead_lettered",
            **fields | {"status": death.status, "request_id": death.request_id},
            **_about((change,)),
            attempt=death.attempts,
            reason=death.reason,
            error=death.error,
        )
    if outcome.deferred:
        _log_deferred(logger, outcome, fields | _about(outcome.deferred))


def _log_deferred(logger: structlog.typing.FilteringBoundLogger, outcome: Outcome, fields: dict[str, Any]) -> None:
    if outcome.deferral is Deferral.RETRY:
        delay_ms = round(outcome.delay_seconds * 1_000)
        logger.info(
            "change.retry_scheduled", **fields, attempt=outcome.attempts, delay_ms=delay_ms, error=outcome.error
        )
    else:
        logger.debug("change.given_back", **fields, why=outcome.deferral)


def _about(changes: Sequence[QueuedChange]) -> dict[str, Any]:
    return {
        "change_ids": [change.change_id for change in changes if change.change_id is not None],
        "changes": len(changes),
    }
