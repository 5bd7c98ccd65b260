"""The worker: what it is made of, how it starts, and how it ends in order."""

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

# After the grace: what was cut off has to be recorded, by a store that may be away, and the last words be said.
_FLUSH_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0
_LOST_GRACE_SECONDS = 5.0  # recorded updates took up to 6 s; what they do is done again in any case
_MOST_BYTES_HELD = 32 * 1024 * 1024  # of metadata in claims, besides their number


class Worker:
    """Applies what the queue holds until it is stopped, or, as the options say, until it is done.

    Args:
        queue: open; it stays open.
        client: of the service; open, and it stays open.
        read_key: reads the API key again, where its source has changed, or, told so, in any case; says if it is new.
        around: wraps what turns a claim into its outcome, to watch it.
        results: where outcomes are written; None for nowhere.
        clock: where all parts have the time from.
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
        # In containers, and on hosts that share a name, two may have the same name and number.
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        jitter = random.Random()  # noqa: S311 -- no secret
        self._queue = queue
        self._options = options
        self._logger = logger = logger or structlog.get_logger().bind()  # bound once, and not for each line

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
            most_bytes=_MOST_BYTES_HELD,
        )
        self._pausing = Pausing(queue, self._flow, self._leases, tallies, logger, clock=clock, on_pause=self._paused)
        self._pool = ApplierPool(options.max_concurrency, self._handle)
        # Urgent works have tasks of their own, or they would wait behind all that are at work, parked or in line. How
        # many requests may be in flight, and whose turn it is, flow control says.
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
            batch_size=options.batch_size,
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
        """Claim nothing more, give back what has not started, let what is in flight finish within the grace."""
        if self._ending is None:
            self._ending = ending
            self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it claims nothing more."""
        return self._ending is not None

    def standstill(self) -> Standstill | None:
        """By whom and why the queue is paused, as far as this worker has heard; None while it is not."""
        return self._pausing.standstill

    def absent(self) -> tuple[int, float]:
        """Of a drain: how many completions were not found so far, and the seconds until the last is given up."""
        return self._draining.absent() if self._draining else (0, 0.0)

    def flow_state(self) -> FlowState | None:
        """How fast things go, and what holds them; None before the run."""
        return self._flow.snapshot() if self._started else None

    async def run(self) -> Summary:
        """Work until the end, and say how it came.

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
        """Run all loops until something ends the run, then stop them in order; tell also if nothing is left."""
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
        """Take this worker's notes away, and see whether nothing is left; a store that is away is not waited for."""
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
            if self._pausing.standstill is not None:  # what was met before the pause may be over
                self.stop(Ending.PAUSED)
            elif cause is None or cause.reason == OUTAGE or self._flow.gate.is_halted_by_few:
                self.stop(Ending.MAX_DURATION)
            else:  # waiting will not help
                self._end(Ending.HALTED, cause)

    def _end(self, ending: Ending, cause: Cause | None) -> None:
        """Stop for a reason."""
        if self._ending is None:
            self._cause = cause
            self.stop(ending)

    def _grace_seconds(self, ending: Ending) -> float:
        """How long requests in flight may take: what comes of them cannot always be recorded."""
        match ending:
            case Ending.FAILED:
                return 0.0
            case Ending.RESULTS_LOST:
                return min(self._options.shutdown_grace_seconds, _LOST_GRACE_SECONDS)
            case _:
                return self._options.shutdown_grace_seconds

    def _results_lost(self, error: str) -> None:
        """Nothing can be recorded any more: this decides how the run has ended, even if it ends already."""
        self._logger.error("results.lost", error=error)
        self._ending, self._cause = Ending.RESULTS_LOST, Cause(Ending.RESULTS_LOST.value, error)
        self._stop.set()

    def _left(self) -> dict[str, str]:
        """What is left because it failed, the first few of it, where that ended the run."""
        if self._draining is None or self._ending is not Ending.STUCK:
            return {}
        return dict(islice(self._draining.failing.items(), MOST_NAMED))

    async def _read(self) -> None:
        await self._until_begun()
        self._loops.start("pause", self._pausing.run())
        await self._reader.run(drain=self._options.drain)
        self.stop(Ending.DRAINED)

    async def _until_begun(self) -> None:
        """Wait for the store: it may not be there yet."""
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
            except BaseException:  # the pool has broken, and this with it
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
        """What was claimed is not begun."""
        blame = Blame(work, self._flow, self._rules, self.clock.monotonic)
        self._record(Ledger(work, blame).outcome(self.clock.monotonic(), delay_seconds=delay_seconds))

    async def _wind_down(self, grace_seconds: float) -> bool:
        """Give back what has not started, wait for the rest as long as the grace lasts, then cut it off.

        Tells whether all of it was recorded.
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
            # Their leases will run out, and they will be done again.
            self._logger.error("worker.unrecorded", claims=len(self._leases))  # noqa: TRY400 -- no trace needed
            return False
        return True

    def _pool_of(self, work: Work) -> ApplierPool:
        return self._urgent_pool if work.is_urgent else self._pool

    def _take_back(self) -> None:
        """Give back to the queue what no task has taken."""
        for work in (*self._urgent_pool.take_back(), *self._pool.take_back()):
            self._give_back(work)

    def _paused(self) -> None:
        """Nothing may start any more: what is only held is given back, and a drain is over."""
        self._take_back()
        if self._options.drain:
            self.stop(Ending.PAUSED)

    def _refused(self, delay_seconds: float, word: Ended) -> None:
        """The service asked this worker to wait."""
        self._sharing.refused(delay_seconds, throttled=word.end is End.THROTTLED)
        self._telling.refused(delay_seconds, word)

    def _gate_changed(self, event: GateEvent) -> None:
        """The gate of flow control halted everything, or slowed it down, or let it go on."""
        self._sharing.gate_changed(event)
        self._telling.gate_changed(event)
