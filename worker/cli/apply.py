"""`metasync apply`: enqueue and drain in one go."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict

from config.settings import Loaded
from worker.changes.files import UnwritableRejects
from worker.cli.enqueue import Enqueued, InputError, Intake, add_intake, enqueue_files, intake_of
from worker.cli.enqueue import summary as enqueued_text
from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, WORKING, add_settings, duration, load_settings
from worker.cli.job import Job, configure_logs, key_of, run_async
from worker.cli.output import say, say_json, table, tell
from worker.cli.progress import Terminal, show_progress
from worker.cli.session import exit_code, summary_fields, work
from worker.engine import Summary
from worker.queue import open_queue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    add_intake(parser)
    parser.add_argument("--max-duration", type=duration, metavar="TIME", help="end after so long, such as 15m")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")
    add_settings(parser, "queue_url", "store_timeout", *WORKING, *LOGGING)


def execute(arguments: argparse.Namespace) -> int:
    """Store the changes, apply all that is pending, print what became of it."""
    loaded = load_settings(arguments)
    settings = loaded.settings
    key_of(settings)
    terminal = Terminal() if sys.stderr.isatty() and settings.log_format != "json" else None
    # Beside a progress line, a line for each outcome is noise, unless it was asked for.
    quiet = terminal is not None and loaded.origins["log_level"] == "default"
    configure_logs(settings, level="error" if quiet else None, terminal=terminal)

    def reload() -> Loaded:
        return load_settings(arguments)

    job = Job(settings, reload, drain=True, max_duration_seconds=arguments.max_duration)
    intake = intake_of(arguments, settings.mode)
    return run_async(_apply(job, intake, shown=terminal is not None, json=arguments.json))


async def _apply(job: Job, intake: Intake, *, shown: bool, json: bool) -> int:
    settings = job.settings
    started_at = time.monotonic()
    async with open_queue(settings.queue_url, timeout_seconds=settings.store_timeout) as queue:
        try:
            enqueued = await enqueue_files(queue, intake)
        except (InputError, UnwritableRejects) as error:
            tell(str(error))
            return Exit.USAGE
        enqueue_seconds = time.monotonic() - started_at
        pending = (await queue.status()).pending if shown else None
        summary = await work(queue, job, show_progress(pending) if shown else None)
    code = exit_code(summary, job)
    if code is Exit.DONE and enqueued.refused:
        code = Exit.NOT_ALL
    fields = summary_fields(summary) | {"exit_code": code, "enqueued": asdict(enqueued)}
    if json:
        say_json(fields)
    else:
        say(summary_text(summary, enqueued, enqueue_seconds))
    return code


def summary_text(summary: Summary, enqueued: Enqueued, enqueue_seconds: float) -> str:
    """The run's figures as a table for people."""
    totals = summary.totals
    per_second = totals.changes / summary.seconds if summary.seconds else 0.0
    rows = [
        ("enqueued", "", enqueued_text(enqueued)),
        ("applied", f"{totals.applied:,}", "changes that the service now has"),
        ("unchanged", f"{totals.unchanged:,}", "changes that it had already"),
        ("dead", f"{totals.dead:,}", _reasons_text(totals.reasons)),
        ("requests", f"{summary.requests:,}", f"{totals.retries:,} tried again, {summary.throttled:,} throttled"),
        (
            "time",
            "",
            f"{enqueue_seconds:.1f} s to enqueue, {summary.seconds:.1f} s to apply: {per_second:,.0f} changes/s",
        ),
    ]
    return "\n".join((table(rows, right=(1,)), _ending_text(summary)))


def _reasons_text(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))


def _ending_text(summary: Summary) -> str:
    if summary.empty:
        dead = "; `metasync dead list` shows what was given up" if summary.totals.dead else ""
        return f"done{dead}"
    why = f"{summary.ending}: {summary.reason}" if summary.reason else summary.ending
    return f"not finished ({why}); what is left stays in the queue: `metasync run --drain` goes on"
