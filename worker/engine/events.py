"""The log events of outcomes. People script against their shape."""

from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from worker.engine.outcome import Deferral, Outcome
from worker.queue import QueuedChange


def log_outcome(  # noqa: C901 -- a branch for each kind of end
    logger: structlog.typing.FilteringBoundLogger, outcome: Outcome, *, log_values: bool
) -> None:
    """Log a claim's outcome: one event for each result, and for each batch among the changes with that result.

    Args:
        log_values: whether the events show metadata values. They always show keys.
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
        for about in _abouts(outcome.applied):
            logger.info("change.applied", **fields, **about, **extra)
    if outcome.unchanged:
        for about in _abouts(outcome.unchanged):
            logger.info("change.unchanged", **fields, **about, attempt=outcome.attempts + 1)
    if outcome.superseded:
        for about in _abouts(outcome.superseded):
            logger.info("change.superseded", **fields, **about)
    if outcome.dead:
        _log_dead(logger, outcome, fields)
    if outcome.deferred:
        for about in _abouts(outcome.deferred):
            _log_deferred(logger, outcome, fields | about)


def _log_dead(logger: structlog.typing.FilteringBoundLogger, outcome: Outcome, fields: dict[str, Any]) -> None:
    for change, death in outcome.dead:
        (about,) = _abouts((change,))
        logger.warning(
            "change.dead_lettered",
            **fields | {"status": death.status, "request_id": death.request_id},
            **about,
            attempt=death.attempts,
            reason=death.reason,
            error=death.error,
        )


def _log_deferred(logger: structlog.typing.FilteringBoundLogger, outcome: Outcome, fields: dict[str, Any]) -> None:
    if outcome.deferral is Deferral.RETRY:
        delay_ms = round(outcome.delay_seconds * 1_000)
        logger.info(
            "change.retry_scheduled", **fields, attempt=outcome.attempts, delay_ms=delay_ms, error=outcome.error
        )
    else:
        logger.debug("change.given_back", **fields, why=outcome.deferral)


def _abouts(changes: Sequence[QueuedChange]) -> Iterable[dict[str, Any]]:
    """The fields about the changes themselves, once for each batch; changes without a batch count as one."""
    if len(changes) == 1:  # as nearly always
        return (_about(changes[0].batch, changes),)
    by_batch = dict[str | None, list[QueuedChange]]()
    for change in changes:
        by_batch.setdefault(change.batch, []).append(change)
    return [_about(batch, its) for batch, its in by_batch.items()]


def _about(batch: str | None, changes: Sequence[QueuedChange]) -> dict[str, Any]:
    about: dict[str, Any] = {"change_ids": [], "changes": len(changes)}
    if batch is not None:
        about["batch"] = batch
    for change in changes:
        if change.change_id is not None:
            about["change_ids"].append(change.change_id)
    return about
