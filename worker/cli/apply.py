"""`metasync apply`: enqueue and drain in one go."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from worker.changes.patience import Patience
from worker.cli import signals
from worker.cli.calling import client_of
from worker.cli.enqueue import Files
from worker.cli.exits import Exit
from worker.cli.failing import failing_as_json
from worker.cli.flags import LOGGING, MAX_DURATION, WORKING, Prints
from worker.cli.inputs import Intake
from worker.cli.intake import Enqueued, account, account_of_cut, take_in
from worker.cli.job import Job, configure_logs, opened, run_async
from worker.cli.output import report, report_json, table, tell
from worker.cli.paused import Paused
from worker.cli.pieces import Piece
from worker.cli.progress import Terminal, show_progress
from worker.cli.results import RESULTS, WITH_VALUES, results_to
from worker.cli.session import exit_code, summary_fields, work
from worker.cli.tracing import Tracing
from worker.cli.words import ending_words
from worker.engine import Ending, Summary
from worker.flags import Flag
from worker.results import Places
from worker.terminal import is_terminal, printable

# What the user must do before the rest can continue.
_FIRST = {
    Ending.HALTED: "fix the cause, then ",
    Ending.RESULTS_LOST: "fix the cause, then ",
    Ending.PAUSED: "`metasync resume`, then ",
}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run: counts of changes, unless the name says otherwise.

    Args:
        reasons: dead letters by reason.
        requests: sent to the service.
        retries: requests and claims that were retried after a failure.
        throttled: 429 answers about the rate.
        ending: why the run ended; null if nothing was applied because the files could not be enqueued completely.
        superseded: not sent, because a change with a newer `as_of` was applied.
        leftover: applied replacements of which the service kept old keys.
        halted: the reason of the halt, if that ended the run.
        error: the service's own words about the halt, or why the run did not start.
        left: the first few completions whose changes failed and are still pending, with their errors.
        paused: who paused the queue, if that ended the run.
        closed_for_seconds: how much longer the service asks to wait.
        enqueued: the result of enqueueing the files.
    """

    enqueued: Enqueued
    exit_code: Exit
    applied: int = 0
    unchanged: int = 0
    superseded: int = 0
    leftover: int = 0
    dead: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    changes: int = 0
    retries: int = 0
    throttled: int = 0
    seconds: float = 0.0
    ending: Ending | None = None
    halted: str | None = None
    error: str | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    paused: Paused | None = None
    closed_for_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Apply(Files):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = (*Files.SETTINGS, *WORKING, *LOGGING)

    max_duration: Annotated[float | None, MAX_DURATION] = None
    results: Annotated[str | None, RESULTS] = None
    with_values: Annotated[bool, WITH_VALUES] = False
    json: Annotated[bool, Flag("the summary as one JSON object"), Prints(Report)] = False


MODEL = Apply


def execute(arguments: Apply) -> int:
    """Store the changes, apply everything pending, print the result."""
    with failing_as_json(lambda error, code: Report(Enqueued(), code, error=error), wanted=arguments.json):
        loaded = arguments.load()
        settings = loaded.settings
        client_of(settings, Tracing())  # what no request can carry is refused before anything is stored
        terminal = Terminal() if is_terminal(sys.stderr) and settings.log_format != "json" else None
        # With a progress line, a log line per outcome is noise, unless the user asked for it.
        quiet = terminal is not None and loaded.origins["log_level"] == "default"
        configure_logs(settings, level="error" if quiet else None, terminal=terminal)
        intake = arguments.intake(settings)
        places = None if arguments.results is None else Places()
        with results_to(arguments.results, with_values=arguments.with_values, places=places) as results:
            job = Job(
                settings,
                arguments.load,
                drain=True,
                max_duration_seconds=arguments.max_duration,
                warning=loaded.led_astray,
                results=results,
            )
            return run_async(_apply(job, intake, places, shown=terminal is not None, json=arguments.json))


async def _apply(job: Job, intake: Intake, places: Places | None, *, shown: bool, json: bool) -> int:
    started_at = time.monotonic()
    async with opened(job) as queue:
        await queue.next_due_seconds()  # an unusable store fails before any file is read
        enqueued = Enqueued()
        with (
            closing(Patience()) as patience,
            signals.stopping(patience.stop, lambda: account_of_cut(enqueued, "interrupted twice")),
        ):
            await take_in(queue, intake, patience, enqueued, None if places is None else _kept_in(places))
            if enqueued.error is not None:
                tell(account(enqueued))
                if json:
                    report_json(Report(enqueued, enqueued.exit_code, error=enqueued.error))
                return enqueued.exit_code
        enqueue_seconds = time.monotonic() - started_at
        pending = (await queue.status()).pending if shown else None
        summary = await work(queue, job, show_progress(pending) if shown else None)
    code = exit_code(summary, job)
    if code is Exit.DONE:
        code = enqueued.exit_code
    if json:
        report_json(Report(enqueued, code, **summary_fields(summary)))
    else:
        report(summary_text(summary, enqueued, enqueue_seconds))
    return code


def _kept_in(places: Places) -> Callable[[Piece], None]:
    return lambda piece: places.add_all(piece.changes, piece.places)


def summary_text(summary: Summary, enqueued: Enqueued, enqueue_seconds: float) -> str:
    """Describe the run's result and the next step."""
    return f"{figures_text(summary, enqueued, enqueue_seconds)}\n{_ending_text(summary)}"


def figures_text(summary: Summary, enqueued: Enqueued, enqueue_seconds: float) -> str:
    """Format the run's counts as a table."""
    totals = summary.totals
    per_second = totals.changes / summary.seconds if summary.seconds else 0.0
    rows = [
        ("enqueued", "", account(enqueued)),
        *([("batch", "", enqueued.batch)] if enqueued.batch is not None else []),
        ("applied", f"{totals.applied:,}", "changes that the service has now"),
        ("unchanged", f"{totals.unchanged:,}", "changes that the service had already"),
        *(
            [("superseded", f"{totals.superseded:,}", "not sent: a change with a newer as_of was applied")]
            if totals.superseded
            else []
        ),
        *(
            [("leftover", f"{totals.leftover:,}", "applied, but the service kept keys that they replace")]
            if totals.leftover
            else []
        ),
        ("dead", f"{totals.dead:,}", _reasons_text(totals.reasons)),
        ("requests", f"{summary.requests:,}", f"{totals.retries:,} retried, {summary.throttled:,} throttled"),
        (
            "time",
            "",
            f"{enqueue_seconds:.1f} s to enqueue, {summary.seconds:.1f} s to apply: {per_second:,.0f} changes/s",
        ),
    ]
    return table(rows, right=(1,))


def _reasons_text(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))


def _ending_text(summary: Summary) -> str:
    if summary.empty:
        dead = "; `metasync dead list` shows the dead letters" if summary.totals.dead else ""
        return f"done{dead}"
    first = _FIRST.get(summary.ending, "")
    left = [f"left: {completion_id}: {error}" for completion_id, error in summary.left.items()]
    end = f"not finished ({_why(summary)}); the rest stays in the queue: {first}`metasync run --drain` continues"
    return "\n".join((*left, end))


def _why(summary: Summary) -> str:
    if (paused := Paused.of(summary.paused)) is not None and summary.ending is Ending.PAUSED:
        return printable(paused.sentence)
    return ending_words(summary.ending, summary.cause, summary.closed_for_seconds)
