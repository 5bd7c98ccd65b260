"""Obeys a pause in the store: nothing starts until it is taken away."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

import structlog

from worker.engine.clock import Clock
from worker.engine.leases import Leases
from worker.engine.tallies import Tallies
from worker.flow import Flow
from worker.queue import Coordination, Note, Pause, QueueUnavailable, Standstill, pause_of
from worker.queue.notes import PAUSE

_EVERY_SECONDS = 1.0  # between two looks: one small read of the store


class Pausing:
    """Looks once a second whether the queue is paused. While the store is away, its last word holds.

    Args:
        leases: of what is in hand, which may start at any time.
        tallies: hear while it is paused whether the store answers.
        on_pause: called when a pause begins, after flow control has heard of it.
        logger: gets `queue.paused`, `worker.quiet` once nothing is in flight any more, and `queue.resumed`.
    """

    def __init__(
        self,
        queue: Coordination,
        flow: Flow,
        leases: Leases,
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        clock: Clock,
        on_pause: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._flow = flow
        self._leases = leases
        self._tallies = tallies
        self._logger = logger
        self._clock = clock
        self._on_pause = on_pause
        self._is_quiet = False
        self._asked_at = -math.inf
        self.standstill: Standstill | None = None

    def __repr__(self) -> str:
        return f"<Pausing [{'paused' if self.standstill else 'not paused'}]>"

    async def run(self) -> None:
        """Look for ever: once a second while there is work or a pause; else before work begins, see `look_again`."""
        is_away = False
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            if self.standstill is None and not len(self._leases):
                continue
            try:
                with self._tallied():
                    await self._look()
            except QueueUnavailable as error:
                if self.standstill is not None and not is_away:
                    self._logger.warning("store.unavailable", operation="pause", error=str(error))
                is_away = True
            else:
                is_away = False
            self._tell_quiet()

    def _tallied(self) -> AbstractContextManager[None]:
        """Claims tell best whether the store works; while there are none, this does."""
        return nullcontext() if self.standstill is None else self._tallies.store_call("pause")

    async def look_again(self) -> None:
        """Look unless that was done within the last second; while the store is away, its last word holds."""
        if self._clock.monotonic() - self._asked_at >= _EVERY_SECONDS:
            with suppress(QueueUnavailable):
                await self._look()

    async def _look(self) -> None:
        asked_at = self._clock.monotonic()
        self.heed(await self._queue.read_note(PAUSE), asked_at)

    def heed(self, note: Note | None, asked_at: float) -> None:
        """Take in the pause's note, if there is one.

        Args:
            asked_at: when the store was asked, by the monotonic clock: an answer may be overtaken by a later one.
        """
        if asked_at < self._asked_at:
            return
        self._asked_at = asked_at
        pause, before = pause_of(note), self.standstill
        if pause is None:
            if before is not None:
                self._resume(before)
        elif before is None or pause.words != (before.by, before.reason):
            self._pause(pause, is_new=before is None)

    def _pause(self, pause: Pause, *, is_new: bool) -> None:
        self.standstill = Standstill(pause.by, pause.reason, self._clock.unix() - pause.age_seconds)
        self._flow.pause(paused=True)
        self._logger.warning(
            "queue.paused",
            by=pause.by,
            reason=pause.reason,
            paused_seconds=round(pause.age_seconds, 1),
            in_flight=self._flow.in_flight,
        )
        self._is_quiet = False  # of this pause it has not been said: a resume in between may have gone unseen
        if is_new:
            self._on_pause()

    def _resume(self, before: Standstill) -> None:
        self.standstill = None
        self._flow.pause(paused=False)
        seconds = round(self._clock.unix() - before.since, 1)
        self._logger.info("queue.resumed", by=before.by, reason=before.reason, paused_seconds=seconds)

    def _tell_quiet(self) -> None:
        """Say once that the last request has ended: from then on, nothing of this worker reaches the service."""
        if self.standstill is not None and not self._is_quiet and not self._flow.in_flight:
            self._is_quiet = True
            self._logger.info("worker.quiet", by=self.standstill.by, reason=self.standstill.reason)
