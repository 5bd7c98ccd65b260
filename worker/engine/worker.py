"""The worker: assembles the parts, starts them, and stops them in order."""

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import structlog

from worker.engine.applier import CUT_OFF_DELAY_SECONDS, Applier, Apply, Completions
from worker.engine.blame import Blame
from worker.engine.calls import Calls
from worker.engine.clock import Clock
from worker.engine.draining import MOST_NAMED, DrainWatch
from worker.engine.keys import KeyReader, ReadKey
from worker.engine.leases import Leases
from worker.engine.ledger import Ledger
from worker.engine.options import Ending, Options, Summary
from worker.engine.outcome import Outcome
from worker.engine.patience import SHORT_WAIT_SECONDS, store_pauses
from worker.engine.pausing import Pausing
from worker.engine.pool import ApplierPool
from worker.engine.quota import QuotaKeeper
from worker.engine.reader import Reader
from worker.engine.recorder import Recorder
from worker.engine.results import Results
from worker.engine.retention import Retention
from worker.engine.sharing import Sharing
from worker.engine.supervisor import Supervisor
from worker.engine.tallies import Tallies
from worker.engine.telling import Telling
from worker.engine.totals import Totals
from worker.engine.work import Interruption, Work
from worker.flow import OUTAGE, Cause, End, Ended, Flow, FlowState, GateEvent
from worker.queue import QueueError, QueueUnavailable, Standstill, Store
from worker.queue.notes import PAUSE

# After the grace, work that was cut off is recorded, and the worker's notes are deleted. The store may be away.
_FLUSH_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0
_LOST_GRACE_SECONDS = 5.0  # enough for most updates, which took up to 6 s; they are repeated in any case
_MOST_SETTLED = 256  # at once: what the service confirmed for them may be 9 MB, and takes several times that on its way
_MOST_BYTES_HELD = 32 * 1024 * 1024  # a bound on the metadata in claims, besides the one on their number


class Worker:
    """Applies the queue's changes until it is stopped or, in a drain, until nothing is left.

    Args:
        queue: open; the worker does not close it.
        client: of the service; open; the worker does not close it.
        read_key: see `ReadKey`; None if the key cannot change.
        around: wraps the function that turns a claim into its outcome, for tracing.
        results: where outcomes are written; None for nowhere.
        clock: the clock of all parts.
    """

    def __init__(
        self,
        queue: Store,
        client: Completions,
        options: Options,
        *,
        read_key: ReadKey | None = None,
        around: Callable[[Apply], Apply] | None = None,
        results: Results | None = None,
        clock: Clock | None = None,
        logger: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        self.clock = clock = clock or Clock()
        self.tallies = tallies = Tallies(clock)
        self.totals = Totals(tallies)
        now = clock.monotonic
        # In containers, two workers may have the same host name and process id.
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        jitter = random.Random()  # noqa: S311 -- no secret
        self._queue = queue
        self._options = options
        self._logger = logger = logger or structlog.get_logger().bind()  # bound once, not for each line

        self._telling = Telling(logger, clock)
        self._quota: QuotaKeeper | None = None
        if options.requests_per_minute is not None:
            self._quota = QuotaKeeper(queue, options.requests_per_minute, now, lambda: self._sharing.workers)
        self._flow = Flow(
            max_concurrency=options.max_concurrency,
            requests_per_minute=options.requests_per_minute,
            patience_seconds=SHORT_WAIT_SECONDS,
            on_short=self._quota.run_short if self._quota else None,
            clock=now,
            on_transition=self._gate_changed,
            on_refused=self._refused,
        )
        self._sharing = Sharing(
            queue, owner, self._flow, now, lambda notes, asked_at: self._pausing.heed(notes.get(PAUSE), asked_at)
        )
        self._keys = KeyReader(read_key, self._flow, now)

        self._leases = Leases(
            queue,
            tallies,
            logger,
            clock=now,
            lease_seconds=options.lease_seconds,
            most=options.max_concurrency + options.batch_size,
            # Under load, a claim and a settlement in SQLite's thread take longer than the work on a batch: one that is
            # being recorded must not keep the next one from being claimed.
            most_finished=options.batch_size,
            most_bytes=_MOST_BYTES_HELD,
        )
        self._pausing = Pausing(queue, self._flow, self._leases, tallies, logger, clock=clock, on_pause=self._paused)
        self._pool = ApplierPool(options.max_concurrency, self._handle)
        # Urgent works have tasks of their own, or they would wait behind all that are at work, parked or in line. Flow
        # control decides how many requests may be in flight, and which one is next.
        self._urgent_pool = ApplierPool(options.max_concurrency, self._handle)
        self._reader = Reader(
            queue,
            self._flow,
            self._leases,
            logger,
            submit=self._pool.submit,
            submit_urgent=self._urgent_pool.submit,
            waiting=lambda: len(self._pool) + self._flow.waiting,
            slots=options.max_concurrency,
            give_back=self._give_back,
            look_for_pause=self._pausing.look_again,
            tallies=tallies,
            clock=now,
            owner=owner,
            batch_size=options.batch_size,
            lease_seconds=options.lease_seconds,
            confirmed_seconds=options.read_lag_seconds,
        )
        self._calls = Calls(
            self._flow,
            options.retry_policy,
            jitter,
            tallies,
            clock=now,
            request_timeout_seconds=options.request_timeout_seconds,
            parked=lambda work: self._pool_of(work).parked(),
            keys=self._keys,
        )
        self._rules = options.rules
        applier = Applier(
            client, self._calls, self._flow, self._rules, options.retry_policy, jitter, now, tallies, logger
        )
        self._apply = around(applier.apply) if around else applier.apply
        self._recorder = Recorder(
            queue,
            self._leases,
            tallies,
            logger,
            batch_size=min(options.batch_size, _MOST_SETTLED),
            log_values=options.log_values,
            keep_seconds=options.read_lag_seconds,
            remember=options.keep_seconds > 0,
            results=results,
            on_results_lost=self._results_lost,
        )
        self._retention = Retention(
            queue,
            logger,
            dead_seconds=options.dead_retention_seconds,
            keep_seconds=options.keep_seconds,
            confirmed_seconds=options.read_lag_seconds,
            tallies=tallies,
        )
        self._draining: DrainWatch | None = None
        if options.drain:
            self._draining = DrainWatch(
                queue,
                self._flow,
                self._leases,
                tallies,
                now,
                timeout_seconds=options.halt_timeout_seconds,
                stop=self._end,
            )

        self._loops = Supervisor(logger, on_death=lambda: self.stop(Ending.FAILED))
        self._started = False
        self._ending: Ending | None = None
        self._cause: Cause | None = None
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Worker [{self._ending or 'running'}, {len(self._leases)} claims in hand]>"

    def stop(self, ending: Ending = Ending.STOPPED) -> None:
        """Claim nothing more, give back the claims that have not started, and let requests in flight finish in time."""
        if self._ending is None:
            self._ending = ending
            self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it claims nothing more."""
        return self._ending is not None

    def standstill(self) -> Standstill | None:
        """Who paused the queue and why, as far as this worker knows; None while it is not paused."""
        return self._pausing.standstill

    def absent(self) -> tuple[int, float]:
        """In a drain: how many completions were not found so far, and the seconds until the last one is given up."""
        return self._draining.absent() if self._draining else (0, 0.0)

    def due_in_seconds(self) -> float | None:
        """How long until anything is due, while this worker holds nothing; None if it holds, or nothing is pending."""
        return self._reader.due_in_seconds()

    def flow_state(self) -> FlowState | None:
        """The state of flow control; None before the run."""
        return self._flow.snapshot() if self._started else None

    async def run(self) -> Summary:
        """Work until the end, and sum up the run.

        Raises:
            QueueMisnamed: the store can never serve as a queue.
        """
        started_at = self.clock.monotonic()
        self._logger.info("worker.started", drain=self._options.drain, max_concurrency=self._options.max_concurrency)
        self._started = True
        try:
            ending, empty = await self._work()
        finally:
            await self._loops.stop()
        if self._loops.error is not None:
            raise self._loops.error
        flow_state = self._flow.snapshot()
        return Summary(
            ending=ending,
            reason=self._cause.reason if self._cause else None,
            empty=empty,
            totals=self.totals,
            requests=flow_state.requests,
            throttled=flow_state.throttled,
            seconds=self.clock.monotonic() - started_at,
            cause=self._cause,
            left=self._left(),
            closed_for_seconds=flow_state.closed_for_seconds,
            paused=self._pausing.standstill if ending is Ending.PAUSED else None,
        )

    async def _work(self) -> tuple[Ending, bool]:
        """Run all loops until something ends the run, then stop them in order.

        Returns:
            why the run ended, and whether the queue is empty.
        """
        loops = self._loops
        loops.start("recorder", self._recorder.run())
        loops.start("heartbeat", self._leases.heartbeat())
        loops.start("lease expiry", self._leases.expire())
        loops.start("sharing", self._sharing.run())
        loops.start("retention", self._retention.run())
        if self._quota is not None:
            loops.start("quota", self._quota.run(self._flow))
        loops.start("appliers", self._pool.run())
        loops.start("urgent appliers", self._urgent_pool.run())
        loops.start("reader", self._read())
        if self._draining is not None:
            loops.start("drain watch", self._draining.run())
        if self._options.max_duration_seconds is None:
            await self._stop.wait()
        else:
            await self._stop_after(self._options.max_duration_seconds)
        assert self._ending is not None  # noqa: S101 -- `stop` sets it
        self._logger.info("worker.stopping", why=self._ending, reason=self._cause.reason if self._cause else None)
        await loops.stop("reader")
        recorded = await self._wind_down(self._grace_seconds(self._ending))
        await loops.stop()
        return self._ending, recorded and await self._last_words()

    async def _last_words(self) -> bool:
        """Delete this worker's notes; return whether the queue is empty. It does not wait for a store that is away."""
        with suppress(QueueError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._sharing.close()
                return await self._queue.next_due_seconds() is None
        return False

    async def _stop_after(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            cause = self._flow.snapshot().cause
            if self._pausing.standstill is not None:  # a halt from before the pause may be over
                self.stop(Ending.PAUSED)
            elif cause is None or cause.reason == OUTAGE or self._flow.gate.is_halted_by_few:
                self.stop(Ending.MAX_DURATION)
            else:  # waiting will not help
                self._end(Ending.HALTED, cause)

    def _end(self, ending: Ending, cause: Cause | None) -> None:
        """Stop, with the cause, unless the run ends already."""
        if self._ending is None:
            self._cause = cause
            self.stop(ending)

    def _grace_seconds(self, ending: Ending) -> float:
        """How long requests in flight may take. It is short when their outcomes cannot be recorded."""
        match ending:
            case Ending.FAILED:
                return 0.0
            case Ending.RESULTS_LOST:
                return min(self._options.shutdown_grace_seconds, _LOST_GRACE_SECONDS)
            case _:
                return self._options.shutdown_grace_seconds

    def _results_lost(self, error: str) -> None:
        """Nothing can be recorded any more: end the run so, even if it is ending for another reason."""
        self._logger.error("results.lost", error=error)
        self._ending, self._cause = Ending.RESULTS_LOST, Cause(Ending.RESULTS_LOST.value, error)
        self._stop.set()

    def _left(self) -> dict[str, str]:
        """If the run is stuck: the first few completions that failed, with their errors."""
        if self._draining is None or self._ending is not Ending.STUCK:
            return {}
        return dict(islice(self._draining.failing.items(), MOST_NAMED))

    async def _read(self) -> None:
        await self._until_begun()
        self._loops.start("pause", self._pausing.run())
        await self._reader.run(drain=self._options.drain)
        self.stop(Ending.DRAINED)

    async def _until_begun(self) -> None:
        """Wait for the store, which may not run yet."""
        pauses = store_pauses()
        while True:
            try:
                with self.tallies.store_call("begin"):
                    await self._sharing.begin()
            except QueueUnavailable as error:
                self._logger.warning("store.unavailable", operation="begin", error=str(error))
                await asyncio.sleep(next(pauses))
            else:
                return

    async def _handle(self, work: Work) -> None:
        """What an applier task does with one work."""
        if work.interruption is None:
            try:
                outcome = await self._apply(work)
            except BaseException:  # the pool is breaking up, and this task with it
                self._give_back(work, CUT_OFF_DELAY_SECONDS)
                raise
        if work.is_probe:
            self._flow.probe_ended()
        if work.interruption is Interruption.LEASE_LOST:
            self._leases.drop([work.claim])
        else:
            self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        if self._draining is not None:
            self._draining.saw(outcome)
        self._recorder.put(outcome)

    def _give_back(self, work: Work, delay_seconds: float = 0.0) -> None:
        """Give a claim back to the queue, with nothing decided."""
        blame = Blame(work, self._flow, self._rules, self.clock.monotonic)
        self._record(Ledger(work, blame).outcome(self.clock.monotonic(), delay_seconds=delay_seconds))

    async def _wind_down(self, grace_seconds: float) -> bool:
        """Give back what has not started, wait for the rest within the grace, then cut it off.

        Returns:
            whether all claims were recorded.
        """
        self._calls.stopping = True
        for work in self._leases.works:
            if not work.in_flight:
                work.interrupt(Interruption.RELEASED)
        self._take_back()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._leases.fewer_than(1)
        except TimeoutError:
            for work in self._leases.works:
                work.interrupt(Interruption.CUT_OFF)
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._leases.fewer_than(1)
        except TimeoutError:
            # The leases will run out, and the claims will be made again.
            self._logger.error("worker.unrecorded", claims=len(self._leases))  # noqa: TRY400 -- no trace needed
            return False
        return True

    def _pool_of(self, work: Work) -> ApplierPool:
        return self._urgent_pool if work.is_urgent else self._pool

    def _take_back(self) -> None:
        """Give back the works that no task has taken."""
        for work in (*self._urgent_pool.take_back(), *self._pool.take_back()):
            self._give_back(work)

    def _paused(self) -> None:
        """The queue is paused: give back the works that have not started, and end a drain."""
        self._take_back()
        if self._options.drain:
            self.stop(Ending.PAUSED)

    def _refused(self, delay_seconds: float, word: Ended) -> None:
        """The service asked this worker to wait."""
        self._sharing.refused(delay_seconds, throttled=word.end is End.THROTTLED)
        self._telling.refused(delay_seconds, word)

    def _gate_changed(self, event: GateEvent) -> None:
        """The gate of flow control halted, slowed or resumed the work."""
        self._sharing.gate_changed(event)
        self._telling.gate_changed(event)
