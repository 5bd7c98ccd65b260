"""`metasync run`: the worker, as a daemon or until nothing is left."""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import structlog

from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, MAX_DURATION, RECEIVING, SERVING, STORE, WORKING, Configured
from worker.cli.job import Job, configure_logs, key_of, look_once, opened, run_async
from worker.cli.results import RESULTS, WITH_VALUES, results_to
from worker.flags import Flag
from worker.queue import Store
from worker.queue.retention import let_go
from worker.terminal import is_terminal


@dataclass(frozen=True, slots=True)
class Run(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = (*STORE, *SERVING, *RECEIVING, *WORKING, *LOGGING)

    drain: Annotated[bool, Flag("end when no change is pending")] = False
    max_duration: Annotated[float | None, MAX_DURATION] = None
    results: Annotated[str | None, RESULTS] = None
    with_values: Annotated[bool, WITH_VALUES] = False


MODEL = Run


def execute(arguments: Run) -> int:
    """Work until stopped or, with `--drain`, until done."""
    loaded = arguments.load()
    settings = loaded.settings
    key_of(settings)
    with results_to(arguments.results, with_values=arguments.with_values) as results:
        job = Job(
            settings,
            arguments.load,
            drain=arguments.drain,
            max_duration_seconds=arguments.max_duration,
            warning=loaded.led_astray,
            results=results,
        )
        return run_async(_run(job, shown=is_terminal(sys.stderr) and settings.log_format != "json"))


async def _run(job: Job, *, shown: bool) -> Exit:
    configure_logs(job.settings)
    started_at = time.monotonic()
    async with opened(job) as queue:
        if job.drain:
            if await queue.next_due_seconds() is None:
                # Runs with work do this regularly.
                await let_go(
                    queue,
                    structlog.get_logger(),
                    dead_seconds=job.settings.dead_retention,
                    keep_seconds=job.settings.keep,
                    confirmed_seconds=job.settings.read_lag,
                )
                _nothing_to_do(time.monotonic() - started_at)
                return Exit.DONE
        else:
            await look_once(queue)
        return await _work(queue, job, shown=shown)


_COUNTS = ("applied", "unchanged", "superseded", "leftover", "dead", "requests", "changes", "retries", "throttled")


def _nothing_to_do(seconds: float) -> None:
    """Report the end of a run that found an empty queue, as most runs of a timer do."""
    nothing = dict.fromkeys(_COUNTS, 0)
    structlog.get_logger().info(
        "run.summary",
        **nothing,
        reasons={},
        left={},
        seconds=round(seconds, 3),
        ending="drained",
        halted=None,
        error=None,
        paused=None,
        closed_for_seconds=0.0,
        exit_code=Exit.DONE,
    )


async def _work(queue: Store, job: Job, *, shown: bool) -> Exit:
    """Start a worker. Its imports take longer than finding an empty queue, so they are here."""
    from worker.cli.session import exit_code, work  # noqa: PLC0415

    if not shown:
        return exit_code(await work(queue, job), job)
    from worker.cli.progress import Terminal, show_progress  # noqa: PLC0415

    configure_logs(job.settings, terminal=Terminal())
    pending = (await queue.status()).pending if job.drain else None
    return exit_code(await work(queue, job, show_progress(pending)), job)
