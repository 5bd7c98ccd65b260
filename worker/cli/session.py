"""A worker's run as the commands need it: built from settings, stopped by signals, ended with an exit code."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog

from config import logs
from config.settings import ConfigurationError, Loaded, Settings
from worker.api import Client
from worker.cli.exits import Exit
from worker.cli.job import Job, key_of
from worker.cli.output import tell
from worker.cli.tracing import Tracing, tracing
from worker.engine import Ending, Options, Summary, Worker
from worker.queue import Queue


async def work(queue: Queue, job: Job, observe: Callable[[Worker], Coroutine[Any, Any, None]] | None = None) -> Summary:
    """Run a worker over the queue until it ends, or a signal ends it.

    Args:
        observe: runs beside the worker, to show how it goes; cancelled in the end.
    """
    _collect_less()
    async with tracing() as traced, _client(job.settings, traced) as client:
        read_key = _key_reader(client, job.reload)
        worker = Worker(queue, client, _options(job), before_probe=read_key, around=traced.around)
        with _stopped_by_signals(worker):
            async with _served(worker, queue, job):
                summary = await _observed(worker, observe)
    structlog.get_logger().info("run.summary", **summary_fields(summary), exit_code=exit_code(summary, job))
    return summary


async def _observed(worker: Worker, observe: Callable[[Worker], Coroutine[Any, Any, None]] | None) -> Summary:
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(observe(worker)) if observe else None
            summary = await worker.run()
            if watching is not None:
                watching.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return summary


def _collect_less() -> None:
    """Have the garbage collector look less often, and not at what was imported.

    Hardly anything that an update leaves behind is a cycle, yet looking for cycles at the default pace takes 7 % of the
    time. Measured: peak memory stays where it was.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


@asynccontextmanager
async def _served(worker: Worker, queue: Queue, job: Job) -> AsyncIterator[None]:
    """Serve health, metrics and the page, where a port is set; a drain ends by itself, and may run beside a daemon."""
    settings = job.settings
    if settings.http_port is None or job.drain:
        yield
        return
    from worker.web import Unservable, serving  # noqa: PLC0415 -- slow to import, and most commands serve nothing

    token = settings.http_token.get_secret_value() if settings.http_token else None
    try:
        async with serving(
            worker,
            queue,
            host=settings.http_host,
            port=settings.http_port,
            token=token,
            show_values=settings.log_values,
        ):
            yield
    except Unservable as error:
        raise ConfigurationError(str(error)) from None


def exit_code(summary: Summary, job: Job) -> Exit:
    """What the run's end means to whoever started it."""
    match summary.ending:
        case Ending.HALTED:
            return Exit.HALTED
        case Ending.OUTAGE:
            return Exit.RUN_AGAIN
        case Ending.STOPPED if not job.drain:
            return Exit.DONE
        case Ending.STOPPED | Ending.MAX_DURATION if not summary.empty:
            return Exit.RUN_AGAIN
        case _:
            return Exit.NOT_ALL if summary.totals.dead else Exit.DONE


def summary_fields(summary: Summary) -> dict[str, Any]:
    """The figures of a run, for the log and for `--json`."""
    totals = summary.totals
    return {
        "applied": totals.applied,
        "unchanged": totals.unchanged,
        "dead": totals.dead,
        "reasons": dict(totals.reasons),
        "requests": summary.requests,
        "changes": totals.changes,
        "retries": totals.retries,
        "throttled": summary.throttled,
        "seconds": round(summary.seconds, 3),
        "ending": summary.ending,
        "halted": summary.reason,
    }


def _client(settings: Settings, traced: Tracing) -> Client:
    try:
        return traced.make_client(
            base_url=settings.openai_base_url,
            api_key=key_of(settings),
            organization=settings.openai_org_id,
            project=settings.openai_project_id,
            auth=settings.auth,
            max_connections=settings.max_concurrency,
            trust_env=settings.trust_env,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _options(job: Job) -> Options:
    settings = job.settings
    return Options(
        max_concurrency=settings.max_concurrency,
        requests_per_minute=settings.requests_per_minute,
        request_timeout_seconds=settings.request_timeout,
        lease_seconds=settings.lease,
        batch_size=settings.batch_size,
        max_attempts=settings.max_attempts,
        not_found_grace_seconds=settings.not_found_grace,
        halt_timeout_seconds=settings.halt_timeout,
        shutdown_grace_seconds=settings.shutdown_grace,
        log_values=settings.log_values,
        drain=job.drain,
        max_duration_seconds=job.max_duration_seconds,
    )


def _key_reader(client: Client, reload: Callable[[], Loaded]) -> Callable[[], Awaitable[None]]:
    async def read_key() -> None:
        try:
            key = key_of((await asyncio.to_thread(reload)).settings)
            logs.conceal(key)
            client.use_key(key)
        except (ConfigurationError, ValueError) as error:  # ValueError: no header can carry the key
            structlog.get_logger().warning("settings.unreadable", error=str(error))

    return read_key


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C stop the worker in order, a second Ctrl-C at once."""
    loop = asyncio.get_running_loop()
    interrupted = False

    def on_interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            # Nothing is lost: what was in hand comes back when its leases run out.
            logs.flush()
            os._exit(Exit.INTERRUPTED)
        interrupted = True
        tell("stopping: requests in flight may finish; Ctrl-C again ends at once")
        worker.stop()

    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
