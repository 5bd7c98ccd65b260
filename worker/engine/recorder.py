"""The recorder: settles outcomes in batches, then logs them."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from worker.engine.events import log_outcome
from worker.engine.leases import Leases
from worker.engine.outcome import Outcome
from worker.engine.patience import store_pauses
from worker.engine.results import Results, ResultsLost
from worker.engine.tallies import Tallies
from worker.queue import Queue, QueueUnavailable

_FLUSH_SECONDS = 0.04  # with two transactions, the last and its own, 99 of 100 outcomes are durable within 60 ms


class Recorder:
    """Takes outcomes from the appliers, and settles them in the queue.

    Args:
        batch_size: most outcomes stored in one transaction.
        log_values: whether the log shows metadata values.
        keep_seconds: how long the queue remembers the metadata that the service has confirmed.
        remember: whether the queue remembers applied changes for longer; see `Queue.settle`.
        results: where outcomes are written before they are settled; None for nowhere.
        on_results_lost: called once, with the reason, when results cannot be written any more. From then on every claim
            is given back to the queue, so that no change is settled without its line.
    """

    def __init__(
        self,
        queue: Queue,
        leases: Leases,
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
        *,
        batch_size: int,
        log_values: bool,
        keep_seconds: float,
        remember: bool = False,
        results: Results | None = None,
        on_results_lost: Callable[[str], None] | None = None,
    ) -> None:
        self._queue = queue
        self._leases = leases
        self._tallies = tallies
        self._logger = logger
        self._batch_size = batch_size
        self._log_values = log_values
        self._keep_seconds = keep_seconds
        self._remember = remember
        self._results = results
        self._on_results_lost = on_results_lost
        self._results_are_lost = False
        self._outcomes: list[Outcome] = []  # at most one for each claim held: the reader bounds those
        self._due = asyncio.Event()  # there is no use in waiting for more, or the oldest outcome has waited long enough
        self._timer: asyncio.TimerHandle | None = None

    def put(self, outcome: Outcome) -> None:
        """Take an outcome, to record it soon."""
        self._outcomes.append(outcome)
        self._leases.finished += 1
        if self._is_whole():
            self._due.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._due.set)

    def _is_whole(self) -> bool:
        """Whether there is no use in waiting for more: a whole batch is there, or all that is held has its outcome.

        But what was given back may be claimed again at once, and given back again.
        """
        outcomes, leases = self._outcomes, self._leases
        return len(outcomes) >= self._batch_size or (
            leases.finished >= len(leases.held) and bool(outcomes) and not outcomes[-1].deferred
        )

    async def run(self) -> None:
        """Record for ever. A claim that is not recorded when this is cancelled stays leased, and is done again."""
        while True:
            await self._due.wait()
            await self._record(self._take())

    def _take(self) -> list[Outcome]:
        """Take the next batch; the timer starts anew for the outcomes left."""
        batch, self._outcomes = self._outcomes[: self._batch_size], self._outcomes[self._batch_size :]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_whole():
            self._due.clear()
            if self._outcomes:
                self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._due.set)
        return batch

    async def _record(self, batch: list[Outcome]) -> None:
        if self._results is not None:
            batch = await self._written(batch, self._results)
        stale = await self._settle(batch)
        self._leases.drop([outcome.claim for outcome in batch])
        self._leases.finished -= len(batch)
        self._tallies.stale += len(stale)
        if stale:
            batch = [outcome for outcome in batch if outcome.claim.key not in stale]
        self._tallies.recorded(batch)
        for outcome in batch:
            log_outcome(self._logger, outcome, log_values=self._log_values)

    async def _written(self, batch: list[Outcome], results: Results) -> list[Outcome]:
        """Write the results; return the outcomes to settle."""
        if not self._results_are_lost:
            try:
                await results.write(batch)
            except ResultsLost as error:
                self._results_are_lost = True
                if self._on_results_lost is not None:
                    self._on_results_lost(str(error))
            else:
                return batch
        return [outcome.given_back() for outcome in batch]

    async def _settle(self, batch: Iterable[Outcome]) -> set[tuple[str, int]]:
        """Settle in the queue, again and again while the store is away; return the keys of stale claims."""
        settlements = [outcome.settlement() for outcome in batch]
        pauses = store_pauses()
        while True:
            try:
                with self._tallies.store_call("settle"):
                    stale = await self._queue.settle(
                        settlements, keep_seconds=self._keep_seconds, remember=self._remember
                    )
            except QueueUnavailable as error:
                self._logger.warning("store.unavailable", operation="settle", error=str(error))
                await asyncio.sleep(next(pauses))
            else:
                return {settlement.claim.key for settlement in stale}
