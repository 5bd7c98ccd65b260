"""`metasync run`: the worker, as a daemon or until nothing is left."""

import argparse
import sys

from config.settings import Loaded
from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, WORKING, add_settings, duration, load_settings
from worker.cli.progress import Terminal, show_progress
from worker.cli.session import Job, configure_logs, exit_code, key_of, run_async, work
from worker.queue import open_queue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--drain", action="store_true", help="end when nothing is left that is due or will be")
    parser.add_argument("--max-duration", type=duration, metavar="TIME", help="end after so long, such as 15m")
    add_settings(parser, "queue_url", "store_timeout", "http_host", "http_port", *WORKING, *LOGGING)


def execute(arguments: argparse.Namespace) -> int:
    """Work until stopped, or, as the flags say, until done."""
    settings = load_settings(arguments).settings
    key_of(settings)
    terminal = Terminal() if sys.stderr.isatty() and settings.log_format != "json" else None
    configure_logs(settings, terminal=terminal)

    def reload() -> Loaded:
        return load_settings(arguments)

    job = Job(settings, reload, drain=arguments.drain, max_duration_seconds=arguments.max_duration)
    return run_async(_run(job, shown=terminal is not None))


async def _run(job: Job, *, shown: bool) -> Exit:
    async with open_queue(job.settings.queue_url, timeout_seconds=job.settings.store_timeout) as queue:
        pending = (await queue.status()).pending if shown and job.drain else None
        summary = await work(queue, job, show_progress(pending) if shown else None)
    return exit_code(summary, job)
