"""Logs halts and waits of flow control, in the same words for the worker and for `pull` and `diff`."""

import math
from datetime import UTC, datetime

import structlog

from worker.engine.clock import Clock
from worker.engine.patience import SHORT_WAIT_SECONDS
from worker.flow import Ended, GateEvent


class Telling:
    """Writes the log events of halts and waits."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._waiting_until = -math.inf

    def refused(self, delay_seconds: float, word: Ended) -> None:
        """The service asked to wait: log it unless the wait is short, or was logged before."""
        until = self._clock.monotonic() + delay_seconds
        if delay_seconds > SHORT_WAIT_SECONDS and until > self._waiting_until + 1.0:
            self._waiting_until = until
            self._logger.warning(
                "worker.waiting",
                seconds=round(delay_seconds, 1),
                until=datetime.fromtimestamp(self._clock.unix() + delay_seconds, UTC).isoformat(timespec="seconds"),
                error=word.error,
                status=word.status,
                request_id=word.request_id,
            )

    def gate_changed(self, event: GateEvent) -> None:
        """The gate halted, slowed or resumed the work."""
        if event.kind == "slowed":
            self._logger.warning(
                "worker.slowed", reason=event.reason, error=event.cause.error, status=event.cause.status
            )
            return
        if event.kind == "resumed":
            self._logger.info("worker.resumed", reason=event.reason, halted_seconds=event.halted_seconds)
            return
        self._logger.error(
            "worker.halted",
            reason=event.reason,
            error=event.cause.error,
            status=event.cause.status,
            request_id=event.cause.request_id,
            completion_id=event.cause.completion_id,
            operation=event.operation,
            next_probe_seconds=event.next_probe_in_seconds,
        )
