"""`metasync enqueue`: change files are validated and stored, line by line, in their order."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from typing import BinaryIO, cast

from tqdm import tqdm

from worker.changes import MetadataChange, Mode
from worker.changes.change import MODES
from worker.changes.files import FORMATS, ChangeFile, Format, Refusal, RejectsFile, UnreadableFile, UnwritableRejects
from worker.cli.exits import Exit
from worker.cli.flags import add_settings, load_settings
from worker.cli.output import say, say_json, tell
from worker.queue import Queue, open_queue

_BATCH = 5_000
_BATCH_REFUSED_BYTES = 8_000_000
_SHOWN_REFUSALS = 20


@dataclass(frozen=True, slots=True)
class Intake:
    """How files are to be taken in.

    Args:
        mode: of a change that does not name one.
        format: of files whose name does not tell.
        strict: whether one refused line keeps everything out.
        rejects_path: where refused lines are written; None for nowhere.
    """

    paths: Sequence[str]
    mode: Mode
    format: Format | None
    strict: bool
    rejects_path: str | None


@dataclass(slots=True)
class Enqueued:
    """What became of the lines, counted."""

    added: int = 0
    duplicates: int = 0
    refused: int = 0


class InputError(Exception):
    """Nothing was stored; the message, a line for each problem, says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    add_intake(parser)
    parser.add_argument("--json", action="store_true", help="the counts as one JSON object")
    add_settings(parser, "queue_url", "store_timeout")


def add_intake(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of every verb that takes files in."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help=".jsonl, .ndjson or .csv, each also .gz; - is standard input"
    )
    parser.add_argument("--mode", choices=MODES, help="of changes that name none [METASYNC_MODE, default merge]")
    parser.add_argument("--format", choices=FORMATS, help="of standard input, or of a file with another name")
    parser.add_argument("--strict", action="store_true", help="store nothing if any line is refused")
    parser.add_argument("--rejects", metavar="PATH", help="write refused lines there, to be repaired and enqueued")


def execute(arguments: argparse.Namespace) -> int:
    """Store what is good, name what is not."""
    settings = load_settings(arguments).settings
    intake = intake_of(arguments, settings.mode)

    async def enqueue() -> Enqueued:
        async with open_queue(settings.queue_url, timeout_seconds=settings.store_timeout) as queue:
            return await enqueue_files(queue, intake)

    try:
        counts = asyncio.run(enqueue())
    except (InputError, UnwritableRejects) as error:
        tell(str(error))
        return Exit.USAGE
    if arguments.json:
        say_json(asdict(counts))
    else:
        say(summary(counts))
    return Exit.NOT_ALL if counts.refused else Exit.DONE


def intake_of(arguments: argparse.Namespace, mode: Mode) -> Intake:
    """The flags of `add_intake`, as one value."""
    return Intake(arguments.files, mode, arguments.format, arguments.strict, arguments.rejects)


def summary(counts: Enqueued) -> str:
    """One line for people."""
    return f"{counts.added:,} added, {counts.duplicates:,} pending already, {counts.refused:,} refused"


async def enqueue_files(queue: Queue, intake: Intake) -> Enqueued:
    """Store every good change of the files, in order, as a stream.

    Raises:
        InputError: a file cannot be read, or, when strict, a line is refused. Nothing was stored.
    """
    with ExitStack() as stack:
        stdin = stack.enter_context(_spooled_stdin()) if intake.strict and "-" in intake.paths else None
        files = _open(stack, intake, stdin)
        rejects = _open_rejects(stack, intake)
        if intake.strict:
            await asyncio.to_thread(_check, files, rejects)
            files = _open(stack, intake, stdin)
        return await _store(queue, files, rejects)


def _open_rejects(stack: ExitStack, intake: Intake) -> RejectsFile | None:
    if intake.rejects_path is None:
        return None
    try:
        return stack.enter_context(RejectsFile(intake.rejects_path, inputs=intake.paths))
    except UnwritableRejects as error:
        raise InputError(f"metasync: {error}") from None


def _spooled_stdin() -> BinaryIO:
    """Standard input as a file on disk that can be read twice."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
    shutil.copyfileobj(sys.stdin.buffer, spool)
    return cast("BinaryIO", spool)


def _open(stack: ExitStack, intake: Intake, stdin: BinaryIO | None) -> list[ChangeFile]:
    """Open them all before anything is stored: a name that was mistyped is found at once."""
    if stdin is not None:
        stdin.seek(0)
    files = []
    problems = []
    for path in intake.paths:
        try:
            file = ChangeFile.open(path, mode=intake.mode, format=intake.format, stdin=stdin)
        except UnreadableFile as error:
            problems.append(str(error))
        else:
            files.append(stack.enter_context(file))
    if problems:
        raise InputError("\n".join((*problems, "nothing was stored")))
    return files


def _check(files: Iterable[ChangeFile], rejects: RejectsFile | None) -> None:
    """Read everything before anything is stored."""
    shown: list[str] = []
    refused = 0
    for refusal in (item for file in files for item in file if isinstance(item, Refusal)):
        refused += 1
        if rejects is not None:
            rejects.write(refusal)
        if refused <= _SHOWN_REFUSALS:
            shown.append(str(refusal))
    if refused > _SHOWN_REFUSALS:
        shown.append(f"... and {refused - _SHOWN_REFUSALS:,} more")
    if refused:
        raise InputError("\n".join((*shown, f"nothing was stored: {refused:,} lines are refused")))


async def _store(queue: Queue, files: Sequence[ChangeFile], rejects: RejectsFile | None) -> Enqueued:
    counts = Enqueued()
    size_bytes = sum(file.size_bytes or 0 for file in files)
    with tqdm(total=size_bytes or None, unit="B", unit_scale=True, disable=None, leave=False, file=sys.stderr) as bar:
        for file in files:
            items = iter(file)
            before = bar.n
            # Read and parsed in another thread, so that the loop can serve the store meanwhile.
            while batch := await asyncio.to_thread(_take, items):
                await _store_batch(queue, batch, counts, rejects)
                bar.update(before + file.bytes_read - bar.n)
    if rejects is None and counts.refused > _SHOWN_REFUSALS:
        tell(f"... and {counts.refused - _SHOWN_REFUSALS:,} more; --rejects PATH writes them all to a file")
    return counts


def _take(items: Iterator[MetadataChange | Refusal]) -> list[MetadataChange | Refusal]:
    """The next batch: bounded in lines, and in bytes of what is refused, which may be long."""
    batch: list[MetadataChange | Refusal] = []
    refused_bytes = 0
    for item in islice(items, _BATCH):
        batch.append(item)
        if isinstance(item, Refusal):
            refused_bytes += len(item.raw)
            if refused_bytes > _BATCH_REFUSED_BYTES:
                break
    return batch


async def _store_batch(
    queue: Queue, batch: Sequence[MetadataChange | Refusal], counts: Enqueued, rejects: RejectsFile | None
) -> None:
    changes = [item for item in batch if isinstance(item, MetadataChange)]
    stored = await queue.put(changes)
    counts.added += stored.added
    counts.duplicates += stored.duplicates
    for item in batch:
        if isinstance(item, Refusal):
            counts.refused += 1
            if rejects is not None:
                rejects.write(item)
            if counts.refused <= _SHOWN_REFUSALS:
                tqdm.write(str(item), file=sys.stderr)
