"""Run a pull, and report its result."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from worker.changes import MetadataChange
from worker.changes.change import COMPLETION_ID
from worker.changes.files import Reading, Refusal, UnreadableFile
from worker.changes.lines import CutLine, lines
from worker.changes.source import ByteSource
from worker.cli.exits import Exit
from worker.cli.inputs import InputError
from worker.cli.job import Job
from worker.cli.output import OutputLost, counted, needing_a_reader, report_json, tell
from worker.cli.refused import Shown
from worker.cli.syncing import SyncReport, asking, gather, how_far, sentence_of, shown_while
from worker.sync.asking import Asking, Unfinished
from worker.sync.lines import Format, form_of
from worker.sync.listing import Filter, Walk
from worker.sync.pulling import Counts, Pull, Reads
from worker.sync.spool import Spool
from worker.sync.target import Gone, Target, Unwritable
from worker.terminal import shown as quoted
from worker.threads import in_thread

_MOST_TOLD = 20
_BATCH = 5_000


@dataclass
class Report(SyncReport, Counts):
    """The result of a pull.

    Args:
        lines: lines in the file, including those of an earlier run.
        refused: input lines that name no completion.
    """

    lines: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """The file to write."""

    path: str
    format: Format
    gzipped: bool
    overwrite: bool
    resume: bool


@dataclass(frozen=True, slots=True)
class Goal:
    """What to pull, and where to write it.

    Args:
        place: the file; None for standard output, in the given format.
        of, ids, id_column: files that name completions; without them, `wanted` filters the list.
    """

    place: Place | None
    format: Format
    fields: Sequence[str]
    of: Sequence[str]
    ids: str | None
    id_column: str
    wanted: Filter
    json: bool


async def pull(job: Job, goal: Goal, *, progress: bool) -> Exit:
    """Pull, and report the result.

    Raises:
        Unusable: the target cannot be written.
        NoRoom: the temporary file cannot be.
    """
    target = await _opened(goal)
    try:
        # What is read may be a backup, which is not whole if its reader has left.
        with needing_a_reader(target.name), closing(Spool()) as spool:
            return await _Pulling(goal, target, spool, progress=progress).run(job)
    finally:
        target.close()


async def _opened(goal: Goal) -> Target:
    place = goal.place
    if place is None:
        return Target.stdout(form_of(goal.format, goal.fields))
    form = form_of(place.format, goal.fields)
    # The reader of a pipe may come later.
    return await in_thread(
        Target.open, place.path, form, gzipped=place.gzipped, overwrite=place.overwrite, resume=place.resume
    )


def _failed(goal: Goal, error: str, code: Exit) -> Exit:
    tell(f"metasync: {error}")
    if goal.json:
        report_json(Report(exit_code=code, error=error))
    return code


class _Pulling:
    def __init__(self, goal: Goal, target: Target, spool: Spool, *, progress: bool) -> None:
        self._goal = goal
        self._target = target
        self._spool = spool
        self._progress = progress
        self._is_named = bool(goal.of) or goal.ids is not None
        self._told = 0
        self._started_at = time.monotonic()

    async def run(self, job: Job) -> Exit:
        goal, target = self._goal, self._target
        if goal.place is not None and goal.place.resume:
            await in_thread(self._take_up)
        try:
            refused = await self._gather()
        except InputError as error:
            return _failed(goal, str(error), Exit.USAGE)
        async with asking(job) as (asked, client):
            puller = Pull(asked, client, target, goal.fields, tell=self._tell)
            unfinished: Unfinished | None = None
            try:
                await self._work(asked, client, puller)
            except Unfinished as error:
                unfinished = error
            except Unwritable as error:
                return self._unwritable(error)
            except asyncio.CancelledError:
                target.close()
                if goal.place is not None:
                    tell(f"interrupted: {self._so_far()}")
                raise
            if unfinished is not None and goal.place is None:
                await target.flush()
        return self._report(asked, puller.counts, refused, unfinished)

    def _take_up(self) -> None:
        """Skip completions that are in the file already."""
        self._target.take_up(self._spool.mark_done if self._is_named else lambda _: None)

    async def _gather(self) -> int:
        """Put the named completions into the spool; return how many lines name none."""
        goal, spool = self._goal, self._spool
        if goal.of:
            reading = Reading(id_column=goal.id_column)

            def take(changes: list[MetadataChange]) -> Sequence[int]:
                spool.add_ids(each.completion_id for each in changes)
                return ()

            return await gather(goal.of, reading, take)
        if goal.ids is not None:
            return await in_thread(_read_ids, goal.ids, spool)
        return 0

    async def _work(self, asked: Asking, client: Reads, puller: Pull) -> None:
        target, wanted = self._target, self._goal.wanted
        total: int | None = None
        if self._is_named:
            work = puller.named(self._spool)
            total = self._spool.count() if self._progress else None
        else:
            rest = replace(wanted, limit=None if wanted.limit is None else max(0, wanted.limit - target.lines))
            work = puller.walk(Walk(asked, client, rest, behind=list(target.behind)))
            total = rest.limit

        def words(seconds: float) -> list[str]:
            counts = puller.counts
            missing = [f"{counts.not_found:,} not found"] if counts.not_found else []
            return [how_far(counts.written + counts.not_found + counts.unreadable, total, seconds), *missing]

        await (shown_while(asked, words, work) if self._progress else asked.run(work))

    def _tell(self, completion_id: str, sentence: str) -> None:
        self._told += 1
        if self._told <= _MOST_TOLD:
            tell(f"{completion_id}: {sentence}")
        elif self._told == _MOST_TOLD + 1:
            tell("... and more: the count is below")

    def _so_far(self) -> str:
        way_on = "; --resume continues it" if self._goal.place else ""
        return f"{self._target.name} has {counted(self._target.lines, 'line')}{way_on}"

    def _unwritable(self, error: Unwritable) -> Exit:
        if self._goal.place is None:
            raise OutputLost(str(error)) from None
        is_left = self._target.is_file and not isinstance(error, Gone)
        words = f"{error}; --resume continues after the lines that were written" if is_left else str(error)
        return _failed(self._goal, words, Exit.RUN_AGAIN)

    def _report(self, asked: Asking, counts: Counts, refused: int, unfinished: Unfinished | None) -> Exit:
        report = Report(**asdict(counts), lines=self._target.lines, refused=refused)
        report.end(asked, unfinished, self._started_at, is_all=counts.is_all and not refused)
        if unfinished is not None:
            tell(f"{sentence_of(unfinished)}: {self._so_far()}")
        if self._goal.json:
            report_json(report)
        else:
            tell(_account(report))
        return report.exit_code


def _account(report: Report) -> str:
    """Format the counts on one line."""
    words = [f"{report.written:,} written"]
    figures = (
        ("not found", report.not_found),
        ("unreadable", report.unreadable),
        ("not applicable as they are", report.unfit),
        ("passed over", report.passed_over),
    )
    words += [f"{figure:,} {name}" for name, figure in figures if figure]
    if report.refused:
        words.append(f"{counted(report.refused, 'line')} refused")
    words.append(counted(report.requests, "request"))
    if report.not_found and not report.written:
        words.append("none was found: is it the key of another project?")
    return ", ".join(words)


def _read_ids(path: str, spool: Spool) -> int:
    """Put the ids of a file into the spool; return how many lines are invalid.

    Raises:
        InputError: the file cannot be read.
    """
    shown, refused, batch = Shown(), 0, list[str]()
    try:
        source = ByteSource(path, gzipped=path.lower().endswith(".gz"))
    except UnreadableFile as error:
        raise InputError(str(error)) from None
    with closing(source):
        for number, line in _lines(source):
            if isinstance(line, str):
                batch.append(line)
                if len(batch) >= _BATCH:
                    spool.add_ids(batch)
                    batch.clear()
            else:
                refused += 1
                shown.add(Refusal(source.name, number, str(line)))
    spool.add_ids(batch)
    shown.end(has_file=True)
    return refused


def _lines(source: ByteSource) -> Iterator[tuple[int, str | ValueError]]:
    """Yield the id in each non-blank line, or what is wrong with it."""
    for number, line in enumerate(lines(source.read), 1):
        if isinstance(line, CutLine):
            yield number, ValueError(line.reason)
            continue
        text = line.decode("utf-8", "replace").strip()
        if not text:
            continue
        if COMPLETION_ID.fullmatch(text):
            yield number, text
        else:
            yield number, ValueError(f"{quoted(text)} is not the id of a completion")
