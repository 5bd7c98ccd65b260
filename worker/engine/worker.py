"""The worker: reader, appliers, recorder and heartbeat under one roof, started and stopped in order."""

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from worker.api import Client, RetryPolicy
from worker.engine.applier import Applier, Apply, Endurance
from worker.engine.appliers import ApplierPool
from worker.engine.calls import Calls
from worker.engine.leases import Leases
from worker.engine.ledger import Ledger
from worker.engine.notes import Notes, last_limit
from worker.engine.permits import Permits
from worker.engine.reader import Reader
from worker.engine.recorder import Recorder
from worker.engine.sharing import Sharing
from worker.engine.tallies import Tallies
from worker.engine.totals import Totals
from worker.engine.work import Interruption, Work
from worker.flow import OUTAGE, Flow, FlowState, GateEvent
from worker.queue import Queue

# After the grace: what was cut off has to be recorded, by a store that may be away.
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker behaves. Times are in seconds.

    Args:
        drain: end when nothing is left in the queue, due or not.
        max_duration_seconds: end after so long, whatever is left.
        halt_timeout_seconds: how long a drain that is halted waits for the cause to go.
    """

    max_concurrency: int = 64
    requests_per_minute: float | None = None
    request_timeout_seconds: float = 60.0
    lease_seconds: float = 300.0
    batch_size: int = 256
    max_attempts: int = 8
    not_found_grace_seconds: float = 900.0
    halt_timeout_seconds: float = 60.0
    shutdown_grace_seconds: float = 25.0
    log_values: bool = False
    drain: bool = False
    max_duration_seconds: float | None = None
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)


class Ending(StrEnum):
    """Why a run ended."""

    DRAINED = "drained"
    STOPPED = "stopped"
    MAX_DURATION = "max_duration"
    HALTED = "halted"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Args:
        reason: why everything was halted, if that ended it.
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


class Worker:
    """Applies what the queue holds until it is stopped, or, as the options say, until it is done.

    Args:
        queue: open; it stays open.
        client: open; it stays open.
        before_probe: awaited before each probe of a halted service, to read the key again.
        around: wraps what turns a claim into its outcome, to watch it.
    """

    def __init__(
        self,
        queue: Queue,
        client: Client,
        options: Options,
        *,
        before_probe: Callable[[], Awaitable[None]] | None = None,
        around: Callable[[Apply], Apply] | None = None,
        logger: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        self._queue = queue
        self._client = client
        self._options = options
        self._before_probe = before_probe
        self._around = around
        self._logger = logger or structlog.get_logger().bind()  # bound once, and not for each line
        self._ending: Ending | None = None
        self._reason: str | None = None
        self._stop = asyncio.Event()
        self._halt_timer: asyncio.TimerHandle | None = None
        self.totals = Totals()
        self.tallies = Tallies()
        self._flow: Flow | None = None
        self._permits: Permits | None = None
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._sharing = Sharing(queue, self._owner)
        self._leases = Leases(queue, options.lease_seconds, self.tallies, self._logger)
        self._recorder = Recorder(
            queue,
            self._leases,
            self.totals,
            self.tallies,
            self._logger,
            batch_size=options.batch_size,
            log_values=options.log_values,
        )

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

    @property
    def leases_lost(self) -> int:
        """Claims that ended in another worker's hands, or in nobody's."""
        return self._leases.lost

    def flow_state(self) -> FlowState | None:
        """How fast things go, and what holds them; None before the run."""
        return self._flow.snapshot() if self._flow else None

    async def run(self) -> Summary:
        """Work until the end, and say how it came.

        Raises:
            QueueUnusable: the store can no longer serve as a queue.
        """
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        self._logger.info("worker.started", drain=self._options.drain, max_concurrency=self._options.max_concurrency)
        for warning in self._queue.warnings:
            self._logger.warning("store.warning", warning=warning)
        if self._options.requests_per_minute is not None:
            per_minute = self._options.requests_per_minute
            self._permits = Permits(self._queue, per_minute, loop.time, lambda: self._sharing.workers)
        self._flow = flow = await self._build_flow()
        try:
            async with asyncio.TaskGroup() as group:
                await self._run_in(group, flow)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._cancel_halt_timer()
        flow_state = flow.snapshot()
        assert self._ending is not None  # noqa: S101 -- _run_in waits for it
        return Summary(
            ending=self._ending,
            reason=self._reason,
            empty=await self._queue.next_due_seconds() is None,
            totals=self.totals,
            requests=flow_state.requests,
            throttled=flow_state.throttled,
            seconds=loop.time() - started_at,
        )

    async def _build_flow(self) -> Flow:
        return Flow(
            max_concurrency=self._options.max_concurrency,
            requests_per_minute=self._options.requests_per_minute,
            on_short=self._permits.run_short if self._permits else None,
            start_rate_per_second=await last_limit(self._queue),
            on_transition=self._gate_changed,
            on_refused=self._sharing.refused,
        )

    async def _run_in(self, group: asyncio.TaskGroup, flow: Flow) -> None:
        pool = ApplierPool(group, self._options.max_concurrency, self._handle)
        calls = self._calls(flow, pool)
        notes = Notes(self._queue, self._owner, flow.snapshot, lambda: self._sharing.workers)
        apply = self._build_applier(calls).apply
        self._apply = self._around(apply) if self._around else apply
        background = [
            group.create_task(self._recorder.run()),
            group.create_task(self._leases.keep()),
            group.create_task(self._leases.expire()),
            group.create_task(notes.keep()),
            group.create_task(self._sharing.keep(flow)),
        ]
        if self._permits is not None:
            background.append(group.create_task(self._permits.keep(flow)))
        reading = group.create_task(self._read(flow, pool))
        out_of_time = None
        if self._options.max_duration_seconds is not None:
            loop = asyncio.get_running_loop()
            out_of_time = loop.call_later(self._options.max_duration_seconds, self.stop, Ending.MAX_DURATION)
        await self._stop.wait()
        if out_of_time is not None:
            out_of_time.cancel()
        self._logger.info("worker.stopping", why=self._ending, reason=self._reason)
        reading.cancel()
        await self._wind_down(pool, calls)
        pool.close()
        for task in background:
            task.cancel()
        await notes.remove()
        await self._sharing.close()

    async def _read(self, flow: Flow, pool: ApplierPool) -> None:
        options = self._options
        reader = Reader(
            self._queue,
            flow,
            self._leases,
            self._logger,
            pool.submit,
            tallies=self.tallies,
            before_probe=self._before_probe,
            owner=self._owner,
            batch_size=options.batch_size,
            ahead=options.max_concurrency + options.batch_size,
            lease_seconds=options.lease_seconds,
        )
        await reader.run(drain=options.drain)
        self.stop(Ending.DRAINED)

    def _calls(self, flow: Flow, pool: ApplierPool) -> Calls:
        return Calls(
            flow,
            self._options.retry_policy,
            self.totals,
            self.tallies,
            clock=asyncio.get_running_loop().time,
            request_timeout_seconds=self._options.request_timeout_seconds,
            parked=pool.parked,
        )

    def _build_applier(self, calls: Calls) -> Applier:
        endurance = Endurance(self._options.max_attempts, self._options.not_found_grace_seconds)
        jitter = random.Random()  # noqa: S311 -- no secret
        policy = self._options.retry_policy
        clock = asyncio.get_running_loop().time
        return Applier(self._client, calls, endurance, policy, jitter, clock, self.tallies, self._logger)

    async def _handle(self, work: Work) -> None:
        """What an applier task does with one work."""
        if work.interruption is None:
            outcome = await self._apply(work)
        if work.interruption is Interruption.LEASE_LOST:
            self._leases.drop([work.claim])
        else:
            self._recorder.put(outcome)

    async def _wind_down(self, pool: ApplierPool, calls: Calls) -> None:
        """Give back what has not started, wait for the rest as long as the grace lasts, then cut it off."""
        calls.stopping = True
        now = asyncio.get_running_loop().time()
        for work in self._leases.works:
            if not work.in_flight:
                work.interrupt(Interruption.RELEASED)
        for work in pool.take_back():
            self._recorder.put(Ledger(work).outcome(now))
        try:
            async with asyncio.timeout(self._options.shutdown_grace_seconds):
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

    def _gate_changed(self, event: GateEvent) -> None:
        """The gate of flow control halted everything, or let it go on."""
        self._sharing.transition(event)
        if event.kind == "resumed":
            self._logger.info("worker.resumed", reason=event.reason, halted_seconds=event.halted_seconds)
            self._cancel_halt_timer()
            return
        told = {"told_by": self._sharing.told_by} if self._sharing.told_by else {}
        self._logger.error("worker.halted", reason=event.reason, next_probe_seconds=event.next_probe_in_seconds, **told)
        if self._options.drain and self._halt_timer is None:
            loop = asyncio.get_running_loop()
            self._halt_timer = loop.call_later(self._options.halt_timeout_seconds, self._halted_too_long)

    def _halted_too_long(self) -> None:
        state = self.flow_state()
        self._reason = state.halt_reason if state else None
        self.stop(Ending.OUTAGE if self._reason == OUTAGE else Ending.HALTED)

    def _cancel_halt_timer(self) -> None:
        if self._halt_timer is not None:
            self._halt_timer.cancel()
            self._halt_timer = None
