"""`metasync diff`: what changes would alter, or whether the service already has all of them."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

import msgspec

from worker.changes import InvalidChange
from worker.cli.enqueue import FILE, Readable
from worker.cli.exits import Exit
from worker.cli.failing import failing_as_json
from worker.cli.flags import LOGGING, READING, STORE, Prints
from worker.cli.inputs import InputError
from worker.cli.job import Job, run_async
from worker.cli.output import counted, needing_a_reader, report, report_json, say_raw, tell
from worker.cli.syncing import (
    SyncReport,
    above_progress,
    asking,
    gather,
    how_far,
    prepared,
    sentence_of,
    shown_while,
)
from worker.engine.ledger import decoded
from worker.flags import BadValue, Flag
from worker.queue import open_queue
from worker.sync.asking import Unfinished
from worker.sync.comparing import Comparison, Counts, Difference
from worker.sync.spool import Spool
from worker.terminal import has_colors, printable, printable_json

_COLORS = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m"}
_RESET = "\x1b[0m"
_PENDING_AT_ONCE = 5_000
_MOST_TOLD = 20


@dataclass
class Compared(SyncReport, Counts):
    """The result of a comparison: completions, each counted once, unless the name says otherwise.

    Args:
        differs: whose changes would alter something.
        refused: a change would exceed sixteen pairs and become a dead letter.
        unreadable: the service does not show their metadata.
        refused_lines: invalid lines of the files.
    """

    refused_lines: int = 0


@dataclass(frozen=True, slots=True)
class Diff(Readable):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = (
        *dict.fromkeys((*STORE, "mode", *READING, "semantics", "read_lag", *LOGGING)),
    )

    files: Annotated[tuple[str, ...], FILE] = ()
    pending: Annotated[bool, Flag("compare the pending changes in the queue, instead of files")] = False
    summary: Annotated[bool, Flag("print only the counts"), Prints(Compared, beside="--summary")] = False
    keys_only: Annotated[bool, Flag("print keys without values")] = False
    json: Annotated[
        bool,
        Flag("print one JSON object per line and completion; with --summary, the counts as one object"),
        Prints(Difference),
    ] = False

    def __post_init__(self) -> None:
        if self.pending and self.files:
            raise BadValue("pending", "compares the changes in the queue, and takes no FILE")
        if not self.pending and not self.files:
            raise BadValue("files", "is missing: name files of changes, or use --pending")


MODEL = Diff
EPILOG = """Nothing is written to the service. Completions that differ are read again after METASYNC_READ_LAG, since
reads may lag behind; if nothing was applied recently, `--read-lag 0` gives the result at once.

  + grade=A                  a key that the completion would get
  ~ topic=billing → refunds  a key whose value would change
  - draft                    a key that it would lose"""


def execute(arguments: Diff) -> int:
    """Print the differences and the counts."""
    wanted = arguments.json and arguments.summary
    with needing_a_reader(), failing_as_json(lambda error, code: Compared(exit_code=code, error=error), wanted=wanted):
        job, progress = prepared(arguments, shown=True)
        return run_async(_diff(arguments, job, progress=progress))


async def _diff(arguments: Diff, job: Job, *, progress: bool) -> Exit:
    started_at = time.monotonic()
    try:
        with closing(Spool()) as spool:
            refused = await _gather(arguments, job, spool)
            return await _compare(arguments, job, spool, refused, started_at, progress=progress)
    except InputError as error:
        tell(f"metasync: {error}")
        if arguments.json and arguments.summary:
            report_json(Compared(exit_code=Exit.USAGE, error=str(error)))
        return Exit.USAGE


async def _gather(arguments: Diff, job: Job, spool: Spool) -> int:
    """Put the changes into the spool; return how many are invalid."""
    settings = job.settings
    if not arguments.pending:
        return await gather(arguments.files, arguments.reading(settings), spool.add)
    refused, batch = 0, []
    async with open_queue(settings.queue_url, timeout_seconds=settings.store_timeout, create=False) as queue:
        async for queued in queue.pending_changes():
            try:
                batch.append(decoded(queued))
            except InvalidChange as error:
                refused += 1
                if refused <= _MOST_TOLD:
                    tell(f"{queued.completion_id}: change {queued.number}: {error}")
            if len(batch) >= _PENDING_AT_ONCE:
                spool.add(batch)
                batch.clear()
    spool.add(batch)
    return refused


async def _compare(arguments: Diff, job: Job, spool: Spool, refused: int, started_at: float, *, progress: bool) -> Exit:
    settings = job.settings
    printer = _Printer(arguments, progress=progress)
    async with asking(job) as (asked, client):
        comparison = Comparison(
            asked,
            client,
            spool,
            semantics=settings.semantics,
            read_lag_seconds=settings.read_lag,
            now=time.monotonic,
            sleep=asyncio.sleep,
        )
        total = spool.count() if progress else None

        def words(seconds: float) -> list[str]:
            later = [f"{comparison.later:,} to be read again"] if comparison.later else []
            return [how_far(comparison.counts.total, total, seconds), *later]

        unfinished: Unfinished | None = None
        work = comparison.run(printer.print)
        try:
            await (shown_while(asked, words, work) if progress else asked.run(work))
        except Unfinished as error:
            unfinished = error
    counts = comparison.counts
    compared = Compared(**asdict(counts), refused_lines=refused)
    compared.end(asked, unfinished, started_at, is_all=counts.total == counts.in_sync and not refused)
    return _report(arguments, compared, unfinished)


def _report(arguments: Diff, compared: Compared, unfinished: Unfinished | None) -> Exit:
    if unfinished is not None:
        tell(sentence_of(unfinished))
    if not arguments.json:
        report(account(compared))
    elif arguments.summary:
        report_json(compared)
    else:
        tell(account(compared))
    return compared.exit_code


def account(compared: Compared) -> str:
    """Format the counts on one line."""
    words = [
        f"{compared.differs:,} to change",
        f"{compared.in_sync:,} in sync",
        f"{compared.not_found:,} not found",
        f"{compared.refused:,} refused (too many keys)",
    ]
    if compared.unreadable:
        words.append(f"{compared.unreadable:,} unreadable")
    if compared.refused_lines:
        words.append(f"{counted(compared.refused_lines, 'line')} refused")
    if compared.not_found and not (compared.differs or compared.in_sync or compared.refused):
        words.append("none was found: is it the key of another project?")
    return ", ".join(words)


class _Printer:
    """Prints differences as they are found."""

    def __init__(self, arguments: Diff, *, progress: bool) -> None:
        self._arguments = arguments
        self._progress = progress and sys.stdout is not None and sys.stdout.isatty()
        self._colors = sys.stdout is not None and has_colors(sys.stdout)

    def print(self, difference: Difference) -> None:
        arguments = self._arguments
        if arguments.summary:
            return
        if arguments.json:
            shown = difference.without_values() if arguments.keys_only else difference
            self._say(printable_json(msgspec.json.encode(shown).decode()))
        elif difference.state != "in_sync":
            lines = text_of(difference, keys_only=arguments.keys_only, colors=self._colors)
            self._say("\n".join(lines))

    def _say(self, text: str) -> None:
        with above_progress(shown=self._progress):
            say_raw(text)
            if self._progress:
                sys.stdout.flush()


def text_of(difference: Difference, *, keys_only: bool, colors: bool) -> Iterator[str]:
    """Yield the lines of a difference; our own colours are the only control codes."""
    match difference.state:
        case "not_found":
            yield f"{difference.completion_id}: not found"
            return
        case "unreadable":
            yield f"{difference.completion_id}: unreadable: {printable(difference.error or '')}"
            return
        case "refused":
            count = counted(difference.refused, "change")
            yield f"{difference.completion_id}: refused: {count} would give it more than 16 pairs"
        case _:
            yield difference.completion_id
    for mark, text in _keys(difference, keys_only=keys_only):
        line = f"{mark} {text}"
        yield f"  {_COLORS[mark]}{line}{_RESET}" if colors else f"  {line}"


def _keys(difference: Difference, *, keys_only: bool) -> Iterator[tuple[str, str]]:
    for key, value in difference.set.items():
        yield "+", printable(key) if keys_only else f"{printable(key)}={printable(value or '')}"
    for key, values in difference.changed.items():
        before, after = printable(values.before or ""), printable(values.after or "")
        yield "~", printable(key) if keys_only else f"{printable(key)}={before} → {after}"
    for key in difference.removed:
        yield "-", printable(key)
