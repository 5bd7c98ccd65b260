"""`metasync run`: the worker, as a daemon or until nothing is left."""

import argparse
import sys
import time

import structlog

from config.settings import Loaded
from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, WORKING, add_settings, duration, load_settings
from worker.cli.job import Job, configure_logs, key_of, run_async
from worker.queue import Queue, open_queue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--drain", action="store_true", help="end when nothing is left that is due or will be")
    parser.add_argument("--max-duration", type=duration, metavar="TIME", help="end after so long, such as 15m")
    add_settings(parser, "queue_url", "store_timeout", "http_host", "http_port", *WORKING, *LOGGING)


def execute(arguments: argparse.Namespace) -> int:
    """Work until stopped, or, as the flags say, until done."""
    settings = load_settings(arguments).settings
    key_of(settings)

    def reload() -> Loaded:
        return load_settings(arguments)

    job = Job(settings, reload, drain=arguments.drain, max_duration_seconds=arguments.max_duration)
    return run_async(_run(job, shown=sys.stderr.isatty() and settings.log_format != "json"))


async def _run(job: Job, *, shown: bool) -> Exit:
    configure_logs(job.settings)
    started_at = time.monotonic()
    async with open_queue(job.settings.queue_url, timeout_seconds=job.settings.store_timeout) as queue:
        if job.drain and await queue.next_due_seconds() is None:
            _nothing_to_do(time.monotonic() - started_at)
            return Exit.DONE
        return await _work(queue, job, shown=shown)


def _nothing_to_do(seconds: float) -> None:
    """Say what every run says in the end: most runs that a timer starts find an empty queue."""
    nothing = dict.fromkeys(("applied", "unchanged", "dead", "requests", "changes", "retries", "throttled"), 0)
    structlog.get_logger().info(
        "run.summary",
        **nothing,
        reasons={},
        seconds=round(seconds, 3),
        ending="drained",
        halted=None,
        exit_code=Exit.DONE,
    )


async def _work(queue: Queue, job: Job, *, shown: bool) -> Exit:
    """Start a worker. What only that needs takes longer to import than an empty queue to be seen."""
    from worker.cli.session import exit_code, work  # noqa: PLC0415

    if not shown:
        return exit_code(await work(queue, job), job)
    from worker.cli.progress import Terminal, show_progress  # noqa: PLC0415

    configure_logs(job.settings, terminal=Terminal())
    pending = (await queue.status()).pending if job.drain else None
    return exit_code(await work(queue, job, show_progress(pending)), job)
