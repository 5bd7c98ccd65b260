"""Obeys a pause that is noted in the store: nothing starts until the queue is resumed."""

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
    """Looks once a second whether the queue is paused. While the store is away, the last answer holds.

    Args:
        leases: the claims held, which may start a request at any time.
        tallies: count the calls to the store during a pause.
        on_pause: called when a pause begins, after flow control has stopped.
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
        """Look once a second, for ever, while there is work or a pause. Otherwise `look_again` does before a claim."""
        is_away = False
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            if self.standstill is None:
                self._tallies.fails_no_more("pause")  # none is made out of one
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
                if self.standstill is not None:
                    self._tallies.fails_no_more("claim", "next_due")  # none is made in a pause
            self._tell_quiet()

    def _tallied(self) -> AbstractContextManager[None]:
        """Count this call during a pause: there are no claims then that show whether the store answers."""
        return nullcontext() if self.standstill is None else self._tallies.store_call("pause")

    async def look_again(self) -> None:
        """Look, unless the last look is less than a second old. While the store is away, the last answer holds."""
        if self._clock.monotonic() - self._asked_at >= _EVERY_SECONDS:
            with suppress(QueueUnavailable):
                await self._look()

    async def _look(self) -> None:
        asked_at = self._clock.monotonic()
        self.heed(await self._queue.read_note(PAUSE), asked_at)

    def heed(self, note: Note | None, asked_at: float) -> None:
        """Act on the note of a pause.

        Args:
            note: None if the queue is not paused.
            asked_at: when the store was asked, in monotonic seconds: an answer older than the last one is ignored.
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
        self._is_quiet = False  # each pause is told anew: the resume before it may have gone unseen
        if is_new:
            self._on_pause()

    def _resume(self, before: Standstill) -> None:
        self.standstill = None
        self._flow.pause(paused=False)
        seconds = round(self._clock.unix() - before.since, 1)
        self._logger.info("queue.resumed", by=before.by, reason=before.reason, paused_seconds=seconds)

    def _tell_quiet(self) -> None:
        """Log once that the last request has ended: from then on, this worker sends nothing."""
        if self.standstill is not None and not self._is_quiet and not self._flow.in_flight:
            self._is_quiet = True
            self._logger.info("worker.quiet", by=self.standstill.by, reason=self.standstill.reason)
