"""`metasync enqueue`: validate change files and store their lines in order."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from config.durations import duration_seconds
from config.settings import Settings
from worker.changes import InvalidChange
from worker.changes.files import SUFFIXES, Reading
from worker.changes.patience import Patience
from worker.changes.reading import FIELDS, ID_FIELD, AsOf, Empty, Format
from worker.changes.times import as_of_from
from worker.cli import loop, signals
from worker.cli.batches import quoted
from worker.cli.exits import Exit
from worker.cli.failing import failing_as_json
from worker.cli.flags import STORE, Configured, Prints
from worker.cli.inputs import Intake, Place
from worker.cli.intake import Enqueued, account, account_of_cut, account_with_batch, take_in
from worker.cli.output import report, report_json, tell
from worker.cli.waiting import Waited, wait_for, words_of
from worker.flags import BadValue, Flag
from worker.queue import Store, check_batch_name, new_batch_name, open_queue

_SHOWN_BATCHES = 3
_AGAIN = "run the same command again to see whether they are done"


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text.lower(), text)
    if len(text) != 1 or not text.isascii() or text in '"\r\n' or text.isalnum():
        raise ValueError(f"{text!r} must be one character, such as ';', or the word tab")
    return text


def _id_column(text: str) -> str:
    if text in FIELDS[1:] or not text:
        raise ValueError(f"{text!r} has a meaning of its own: the id must be in another column or field")
    return text


def _as_of(text: str) -> AsOf:
    if text == "mtime":
        return "mtime"
    try:
        moment = as_of_from(text)
    except InvalidChange as error:
        raise ValueError(f"{str(error).removeprefix('as_of ')}; or mtime, for each file's own") from None
    assert moment is not None  # noqa: S101 -- text was given
    return moment


def _batch(text: str) -> str:
    try:
        check_batch_name(text)
    except InvalidChange as error:
        raise ValueError(str(error)) from None
    return text


FILE = Flag(f"{SUFFIXES}, each also .gz; - is standard input", name="FILE", positional=True, files=True)


@dataclass(frozen=True, slots=True)
class Readable(Configured):
    """The arguments of every verb that reads files of changes."""

    files: Annotated[tuple[str, ...], FILE] = ()
    format: Annotated[Format | None, Flag("of standard input, or of a file with another name")] = None
    delimiter: Annotated[
        str | None, Flag("what separates the cells of CSV: one character, or tab", metavar="CHAR", parse=_delimiter)
    ] = None
    id_column: Annotated[
        str, Flag("the column, or field, that holds the completion's id", metavar="NAME", parse=_id_column)
    ] = ID_FIELD
    empty: Annotated[Empty, Flag("what a blank cell of CSV does with its key")] = "keep"
    coerce: Annotated[bool, Flag("write values that are numbers or booleans as text, as JSON has them")] = False
    ignore_unknown: Annotated[
        bool, Flag("pass over fields, and columns without `metadata.` before their name, that a change does not have")
    ] = False

    def reading(self, settings: Settings, as_of: AsOf | None = None) -> Reading:
        """How to read the files."""
        return Reading(
            settings.mode,
            self.format,
            self.delimiter,
            self.id_column,
            self.empty,
            self.coerce,
            self.ignore_unknown,
            as_of,
        )


@dataclass(frozen=True, slots=True)
class Files(Readable):
    """The arguments of every verb that takes files in."""

    SETTINGS: ClassVar[tuple[str, ...]] = (*STORE, "mode")

    files: Annotated[tuple[str, ...], FILE]
    strict: Annotated[bool, Flag("store nothing if any line is refused")] = False
    fail_on_empty: Annotated[bool, Flag("a file without a change counts as refused")] = False
    batch: Annotated[
        str | None,
        Flag("the batch that the changes belong to; without it, a new one is named", metavar="NAME", parse=_batch),
    ] = None
    urgent: Annotated[bool, Flag("before all that waits, with all that is pending for the same completions")] = False
    as_of: Annotated[
        AsOf | None,
        Flag(
            "of changes that do not tell when they were so: ISO 8601 with a zone, Unix seconds, or mtime of each file",
            metavar="TIME",
            parse=_as_of,
        ),
    ] = None
    rejects: Annotated[
        str | None, Flag("write refused lines there, to be repaired and enqueued", metavar="PATH", files=True)
    ] = None
    resume_from: Annotated[
        Place | None,
        Flag("pass over the lines up to this one: what an interrupted run said", metavar="LINE", parse=Place.parse),
    ] = None

    def intake(self, settings: Settings) -> Intake:
        """How to take the files in."""
        return Intake(
            self.files,
            self.reading(settings, self.as_of),
            strict=self.strict,
            rejects_path=self.rejects,
            after=self.resume_from,
            fail_on_empty=self.fail_on_empty,
            batch=self.batch or new_batch_name(self.files[0], time.time()),
            urgent=self.urgent,
        )


@dataclass(frozen=True, slots=True)
class EnqueuedAndWaited:
    """The results of the files' lines, and of their batch.

    Args:
        waited: null if there was nothing to wait for, or the files could not be taken in whole.
    """

    enqueued: Enqueued
    waited: Waited | None
    exit_code: Exit


@dataclass(frozen=True, slots=True)
class Enqueue(Files):
    """The verb's arguments."""

    check: Annotated[bool, Flag("validate only: store nothing, and need no queue")] = False
    wait: Annotated[
        bool,
        Flag("return when workers are done with the batch; exit codes as of `apply`"),
        Prints(EnqueuedAndWaited, beside="--wait"),
    ] = False
    timeout: Annotated[float | None, Flag("wait no longer than that", metavar="DURATION", parse=duration_seconds)] = (
        None
    )
    json: Annotated[bool, Flag("the counts as one JSON object"), Prints(Enqueued)] = False

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.wait:
            raise BadValue("timeout", "goes with --wait only")
        if self.check and self.wait:
            raise BadValue("wait", "does not go with --check, which stores nothing to wait for")


MODEL = Enqueue


def execute(arguments: Enqueue) -> int:
    """Store the valid lines, and report the others."""

    def failure(error: str, code: Exit) -> Enqueued | EnqueuedAndWaited:
        counts = Enqueued(error=error, exit_code=code)
        return EnqueuedAndWaited(counts, None, code) if arguments.wait else counts

    with failing_as_json(failure, wanted=arguments.json):
        return loop.run(_enqueue(arguments, arguments.load().settings))


async def _enqueue(arguments: Enqueue, settings: Settings) -> Exit:
    counts = Enqueued()
    intake = arguments.intake(settings)
    stop = asyncio.Event()
    with (
        closing(Patience()) as patience,
        signals.stopping(_both(stop.set, patience.stop), lambda: _cut_off(counts, is_check=arguments.check)),
    ):
        if arguments.check:
            from worker.cli.tally import Tally  # noqa: PLC0415 -- needed here alone

            with closing(Tally()) as tally:
                await take_in(tally, replace(intake, batch=None), patience, counts)
                counts.checked = tally.spread()
            return _report(counts, None, arguments)
        async with open_queue(settings.queue_url, timeout_seconds=settings.store_timeout) as queue:
            await take_in(queue, intake, patience, counts)
            waited = await _wait(queue, counts, arguments, stop) if arguments.wait else None
        return _report(counts, waited, arguments)


def _cut_off(counts: Enqueued, *, is_check: bool) -> str:
    error = "interrupted twice"
    return f"{error}: nothing was stored" if is_check else account_of_cut(counts, error)


def _both(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    return lambda: (first(), second())


async def _wait(queue: Store, counts: Enqueued, arguments: Enqueue, stop: asyncio.Event) -> Waited | None:
    """Wait for the stored changes, unless the files could not be taken in whole."""
    if counts.error is not None or counts.batch is None:
        return None
    if not arguments.json:
        report(account_with_batch(counts))
    if counts.pending_elsewhere:
        tell(f"not awaited: {_elsewhere(counts)}; {_AGAIN}")
    return await wait_for(queue, counts.batch, arguments.timeout, stop)


def _elsewhere(counts: Enqueued) -> str:
    """Which lines are pending in another batch, or in none, for people."""
    in_none = counts.pending_elsewhere - sum(counts.pending_in.values())
    most = sorted(counts.pending_in.items(), key=lambda each: -each[1])
    places = [f"{count:,} in batch {quoted(name)}" for name, count in most[:_SHOWN_BATCHES]]
    if len(most) > _SHOWN_BATCHES:
        places.append(f"{sum(count for _, count in most[_SHOWN_BATCHES:]):,} in other batches")
    if in_none:
        places.append(f"{in_none:,} in no batch")
    return f"{counts.pending_elsewhere:,} were pending already, {', '.join(places)}"


def _report(counts: Enqueued, waited: Waited | None, arguments: Enqueue) -> Exit:
    """Report the result; return the exit code."""
    code = waited.exit_code if waited is not None and waited.exit_code else counts.exit_code
    if waited is not None and counts.pending_elsewhere and code in (Exit.DONE, Exit.NOT_ALL):
        code = Exit.RUN_AGAIN  # not everything is done, as far as is known
    if counts.error is not None:
        tell(account(counts))
    if arguments.json:
        report_json(EnqueuedAndWaited(counts, waited, code) if arguments.wait else counts)
    elif waited is not None:
        rest = f"\nnot awaited: {_elsewhere(counts)}; {_AGAIN}" if counts.pending_elsewhere else ""
        report(f"{words_of(waited, counts.batch or '')}{rest}")
    elif counts.error is None:
        report(account_with_batch(counts))
    return code
