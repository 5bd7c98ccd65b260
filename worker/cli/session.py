"""Run a worker for a command: built from settings, stopped by signals, ended with an exit code."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import asdict
from signal import Signals
from typing import Any, assert_never

import structlog

from config import sink
from config.settings import ConfigurationError
from worker.cli import signals
from worker.cli.calling import client_of, collect_less, key_reader
from worker.cli.exits import Exit
from worker.cli.job import Job
from worker.cli.output import tell
from worker.cli.paused import Paused
from worker.cli.tracing import tracing
from worker.engine import Ending, Options, Summary, Worker
from worker.engine.supervisor import Supervisor
from worker.queue import Store


async def work(queue: Store, job: Job, observe: Callable[[Worker], Coroutine[Any, Any, None]] | None = None) -> Summary:
    """Run a worker over the queue until it ends, or a signal ends it.

    Args:
        observe: runs beside the worker, to show progress; cancelled at the end.
    """
    collect_less()
    if job.warning:
        structlog.get_logger().warning("settings.key_led_astray", error=job.warning)
    async with tracing() as traced, client_of(job.settings, traced) as client:
        read_key = key_reader(client, job)
        worker = Worker(queue, client, _options(job), read_key=read_key, around=traced.around, results=job.results)
        with _stopped_by_signals(worker):
            async with _served(worker, queue, job):
                summary = await _observed(worker, observe)
    structlog.get_logger().info("run.summary", **summary_fields(summary), exit_code=exit_code(summary, job))
    return summary


async def _observed(worker: Worker, observe: Callable[[Worker], Coroutine[Any, Any, None]] | None) -> Summary:
    """Run the worker; if the observer fails, that is logged and the work goes on."""
    if observe is None:
        return await worker.run()
    beside = Supervisor(structlog.get_logger(), on_death=_let_work_go_on)
    beside.start("progress", observe(worker))
    try:
        return await worker.run()
    finally:
        await beside.stop()


def _let_work_go_on() -> None:
    """Ignore that progress is not shown any more: it is logged."""


@asynccontextmanager
async def _served(worker: Worker, queue: Store, job: Job) -> AsyncIterator[None]:
    """Serve HTTP if a port is set. A drain serves nothing, since it may run beside a daemon."""
    settings = job.settings
    if settings.http_port is None or job.drain:
        yield
        return
    from worker.cli.receiving import terms_of  # noqa: PLC0415 -- slow to import, rarely needed
    from worker.web import Unservable, serving  # noqa: PLC0415 -- likewise

    token = settings.http_token.get_secret_value() if settings.http_token else None
    try:
        async with serving(
            worker,
            queue,
            host=settings.http_host,
            port=settings.http_port,
            token=token,
            show_values=settings.log_values,
            dropped_lines=sink.dropped,
            terms=terms_of(settings),
        ):
            yield
    except Unservable as error:
        raise ConfigurationError(str(error)) from None


def exit_code(summary: Summary, job: Job) -> Exit:
    """Return the exit code of a run."""
    match summary.ending:
        case Ending.HALTED:
            return Exit.HALTED
        case Ending.OUTAGE | Ending.STUCK | Ending.CLOSED | Ending.RESULTS_LOST | Ending.STORE_AWAY:
            return Exit.RUN_AGAIN
        case Ending.STOPPED if not job.drain:
            return Exit.DONE
        case Ending.STOPPED | Ending.MAX_DURATION | Ending.PAUSED if not summary.empty:
            return Exit.RUN_AGAIN
        case Ending.STOPPED | Ending.MAX_DURATION | Ending.PAUSED | Ending.DRAINED:
            return Exit.NOT_ALL if summary.totals.dead else Exit.DONE
        case Ending.FAILED:
            return Exit.INTERNAL_ERROR
        case _:
            assert_never(summary.ending)


def summary_fields(summary: Summary) -> dict[str, Any]:
    """Return the counts of a run, for the log and for `--json`."""
    totals = summary.totals
    return {
        "applied": totals.applied,
        "unchanged": totals.unchanged,
        "superseded": totals.superseded,
        "leftover": totals.leftover,
        "dead": totals.dead,
        "reasons": dict(totals.reasons),
        "requests": summary.requests,
        "changes": totals.changes,
        "retries": totals.retries,
        "throttled": summary.throttled,
        "seconds": round(summary.seconds, 3),
        "ending": summary.ending,
        "halted": summary.reason,
        "error": summary.cause.error if summary.cause else None,
        "left": dict(summary.left),
        "paused": None if (paused := Paused.of(summary.paused)) is None else asdict(paused),
        "closed_for_seconds": round(summary.closed_for_seconds, 1),
    }


def _options(job: Job) -> Options:
    settings = job.settings
    return Options(
        max_concurrency=settings.max_concurrency,
        requests_per_minute=settings.requests_per_minute,
        request_timeout_seconds=settings.request_timeout,
        lease_seconds=settings.lease,
        batch_size=settings.batch_size,
        max_attempts=settings.max_attempts,
        give_up_after_seconds=settings.give_up_after,
        not_found_grace_seconds=settings.not_found_grace,
        semantics=settings.semantics,
        read_lag_seconds=settings.read_lag,
        halt_timeout_seconds=settings.halt_timeout,
        shutdown_grace_seconds=settings.shutdown_grace,
        dead_retention_seconds=settings.dead_retention,
        keep_seconds=settings.keep,
        log_values=settings.log_values,
        drain=job.drain,
        max_duration_seconds=job.max_duration_seconds,
    )


def _stopped_by_signals(worker: Worker) -> AbstractContextManager[None]:
    """Let SIGTERM, SIGHUP and the first Ctrl-C stop the worker in order, a second Ctrl-C at once."""
    interrupted = False

    def on_signal(number: Signals) -> None:
        nonlocal interrupted
        if number is Signals.SIGINT:
            if interrupted:
                # Nothing is lost: claimed changes come back when their leases run out.
                signals.leave()
            interrupted = True
            tell("stopping: requests in flight may finish; Ctrl-C again ends at once")
        worker.stop()

    return signals.handled(on_signal)
