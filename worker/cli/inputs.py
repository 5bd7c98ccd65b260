"""The input files of an intake: checked first, opened one at a time, read in order."""

import os
import resource
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Self, cast

from worker.changes.files import ChangeFile, Numbered, Reading, Refusal, UnreadableFile, check_name
from worker.changes.patience import Patience
from worker.changes.source import STDIN, STDIN_NAME, Stretch
from worker.cli.output import counted, tell
from worker.temporary import explained

_EMPTY = "the file holds no change"
_SHOWN_PROBLEMS = 20
# Files that are read twice stay open, up to this share of the process's limit; further ones are copied.
_KEPT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, or a record of a JSON file. The file is as the user named it; empty for the first one."""

    file: str
    line: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a line's number, optionally with the file's name before it.

        Raises:
            ValueError: there is no number.
        """
        file, _, line = text.rpartition(":")
        if not (line.isascii() and line.isdigit()):
            raise ValueError(f"{text!r} must be the number of a line, or a file's name, ':' and the number")
        return cls(file, int(line))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class InputError(Exception):
    """Nothing was stored; the message has one line per problem."""


@dataclass(frozen=True, slots=True)
class Intake:
    """How to enqueue files.

    Args:
        reading: how to interpret them.
        strict: whether one refused line refuses all input.
        rejects_path: the file for refused lines; None for none.
        after: the last line that an earlier run has handled; lines up to it are skipped.
        fail_on_empty: whether a file without a change counts as refused.
        batch: the name of the changes' batch; None for none.
        urgent: whether their completions are updated before all others.
    """

    paths: Sequence[str]
    reading: Reading = Reading()  # noqa: RUF009 -- frozen
    strict: bool = False
    rejects_path: str | None = None
    after: Place | None = None
    fail_on_empty: bool = False
    batch: str | None = None
    urgent: bool = False


class Inputs:
    """The input files of an intake.

    `with_records` has the names of files with records instead of lines.

    Args:
        patience: waits for slow input.

    Raises:
        InputError: the first checks show that a file cannot be used.
    """

    def __init__(self, intake: Intake, patience: Patience) -> None:
        self.size_bytes = 0
        self.with_records: set[str] = set()
        self._intake = intake
        self._patience = patience
        self._spool = _Spool()
        self._kept: dict[int, Stretch] = {}
        self._readings: dict[int, Reading] = {}  # of kept files: a copy has another modification time
        self._descriptors: list[int] = []
        self._most_kept = int(_KEPT_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._bytes_before = self._text_before = 0
        self._file: ChangeFile | None = None
        self._paths = list(intake.paths)
        self._skip_files()
        self._check()

    @property
    def bytes_read(self) -> int:
        """How many bytes have been read, for comparison with `size_bytes`."""
        return self._bytes_before + (self._file.bytes_read if self._file else 0)

    @property
    def text_bytes(self) -> int:
        """How many bytes of text have been read."""
        return self._text_before + (self._file.text_bytes if self._file else 0)

    def files(self, *, keep: bool = False) -> Iterator[tuple[str, Iterator[Numbered]]]:
        """Open one file after another; yields each file's name and items.

        Args:
            keep: keep the files, so that a second reading gives the same content.
        """
        self._bytes_before = self._text_before = 0
        after = self._intake.after.line if self._intake.after else 0
        for position, path in enumerate(self._paths):
            copies = keep and not self._can_be_kept(path)
            spooled_from = self._spool.size
            try:
                file = ChangeFile.open(
                    path,
                    self._readings.get(position, self._intake.reading),
                    patience=self._patience,
                    stretch=self._kept.get(position),
                    copy=self._spool.write if copies else None,
                )
            except UnreadableFile as error:
                yield error.refusal.source, iter([(0, error.refusal)])
                continue
            with file:
                if file.form == "json":
                    self.with_records.add(file.source)
                self._file = file
                yield file.source, self._items(file, 0 if position else after, quiet=position in self._kept)
                if keep:
                    self._keep(position, file, spooled_from, copies=copies)
                self._bytes_before += file.bytes_read
                self._text_before += file.text_bytes
                self._file = None

    def close(self) -> None:
        self._spool.close()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _items(self, file: ChangeFile, after: int, *, quiet: bool) -> Iterator[Numbered]:
        found, number = after > 0, 0
        items = iter(file)
        for numbered in items:
            number, item = numbered
            if number > after:
                yield numbered
                found = found or item is not None
                if found:
                    break
        yield from items
        if number < after:
            yield 0, Refusal(file.source, 0, f"--resume-from {after:,}: the last line is {number:,}")
        if not found and self._intake.fail_on_empty:
            yield 0, Refusal(file.source, 0, _EMPTY)
        elif not found and not quiet:
            tell(f"{file.source}: {_EMPTY}")

    def _keep(self, position: int, file: ChangeFile, spooled_from: int, *, copies: bool) -> None:
        stretch = self._spool.stretch(spooled_from) if copies else file.kept()
        if stretch is None:
            raise InputError(f"{file.source}: it was replaced while it was read\nnothing was stored")
        if not copies:
            self._descriptors.append(stretch.descriptor)
        self._kept[position] = stretch
        self._readings[position] = file.reading

    def _can_be_kept(self, path: str) -> bool:
        status = _status(path)
        return status is not None and stat.S_ISREG(status.st_mode) and len(self._descriptors) < self._most_kept

    def _skip_files(self) -> None:
        """Skip the files before the one where an earlier run stopped."""
        after = self._intake.after
        if after is None or not after.file:
            return
        names = [STDIN_NAME if path == STDIN else path for path in self._paths]
        if after.file not in names:
            raise InputError(f"--resume-from: {after.file} is not among the given files\nnothing was stored")
        skipped = names.index(after.file)
        self._paths = self._paths[skipped:]
        if skipped:  # a pattern of the shell may match a new file, which nobody has handled
            tell(f"--resume-from: {counted(skipped, 'file')} before {after.file} not read")

    def _check(self) -> None:
        """Check every file first, so that a mistyped name is found before anything is stored."""
        problems = ["-: standard input is named twice, but can be read once"] if self._paths.count(STDIN) > 1 else []
        for path in self._paths:
            status = _status(path)
            is_file = status is not None and stat.S_ISREG(status.st_mode)
            self.size_bytes += status.st_size if status is not None and is_file else 0
            try:
                if path != STDIN and (status is None or is_file or stat.S_ISDIR(status.st_mode)):
                    ChangeFile.open(path, self._intake.reading).close()
                else:
                    check_name(path, self._intake.reading)  # the writer of a pipe may come later
            except UnreadableFile as error:
                problems.append(str(error))
        if problems:
            more = len(problems) - _SHOWN_PROBLEMS
            shown = [*problems[:_SHOWN_PROBLEMS], *([f"... and {more:,} more"] if more > 0 else [])]
            raise InputError("\n".join((*shown, "nothing was stored")))


def _status(path: str) -> os.stat_result | None:
    with suppress(OSError, ValueError, AttributeError):  # missing, no valid path, or no standard input
        return os.fstat(sys.stdin.fileno()) if path == STDIN else os.stat(path)  # noqa: PTH116 -- like `fstat`
    return None


class _Spool:
    """An unnamed temporary file for input that can be read only once."""

    def __init__(self) -> None:
        self.size = 0
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Append to it.

        Raises:
            NoRoom: there is no room for it.
        """
        with explained():
            file = self._opened()
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        self.size += len(data)

    def stretch(self, start: int) -> Stretch:
        """Return the part written from there on."""
        return Stretch(self._opened().fileno(), start, self.size)

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 -- close() closes it
        return self._file
