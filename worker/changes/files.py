"""Files of changes: JSON lines, JSON and CSV, compressed or not, read as a stream of changes and refusals."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import BinaryIO, Self

from worker.changes.change import InvalidChange, MetadataChange
from worker.changes.jsonl import line_parser
from worker.changes.lines import CutLine, lines
from worker.changes.patience import Patience
from worker.changes.reading import FORMATS, Format, Reading
from worker.changes.records import records
from worker.changes.refusal import Refusal, UnreadableFile
from worker.changes.rejects import RejectsFile, UnwritableRejects, retake
from worker.changes.rows import Header, Row, rows
from worker.changes.shape import form_of, separator_line
from worker.changes.source import STDIN, STDIN_NAME, ByteSource, Stretch
from worker.changes.times import check_as_of

__all__ = [
    "FORMATS",
    "ChangeFile",
    "Format",
    "Item",
    "Numbered",
    "Reading",
    "Refusal",
    "RejectsFile",
    "UnreadableFile",
    "UnwritableRejects",
]

# The result of one line, record or row; None for a CSV row that is blank or sets nothing.
Item = MetadataChange | Refusal | None
# With its number from 1: of the line, of a row's first line, or of a JSON file's record.
Numbered = tuple[int, Item]

_SUFFIXES: dict[str, tuple[Format, str]] = {
    ".jsonl": ("jsonl", ","),
    ".ndjson": ("jsonl", ","),
    ".json": ("json", ","),
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
}
SUFFIXES = ", ".join(_SUFFIXES)
_JOINED = "as where files were joined: take it out"
_APART = "enqueue those rows as a separate file"


class ChangeFile:
    """An open file of changes. Iterating, once, yields each change or refusal with its number, in the file's order.

    Memory does not grow with the file. Damaged data yields the lines before the damage, then a refusal. `reading` is
    the argument, with the file's own time in place of ``mtime``.

    Args:
        source: the bytes.
        reading: how to interpret them.

    Raises:
        UnreadableFile: the data has another format, or a CSV file has no usable header.
    """

    def __init__(self, source: ByteSource, path: str, reading: Reading) -> None:
        self.source = source.name
        self.size_bytes = source.size_bytes
        self._bytes = source
        form, delimiter = _form(path, reading, source.look())
        try:
            form = form_of(source.look(), form, reading, delimiter)
        except ValueError as error:
            raise UnreadableFile(Refusal(source.name, 0, str(error))) from None
        self.form = form
        if reading.as_of == "mtime":
            reading = replace(reading, as_of=_modified_at(path, source))
        self.reading = reading
        self._items = self._read(form, delimiter, reading)

    @classmethod
    def open(
        cls,
        path: str,
        reading: Reading | None = None,
        *,
        stdin: BinaryIO | None = None,
        stretch: Stretch | None = None,
        patience: Patience | None = None,
        copy: Callable[[bytes], object] | None = None,
    ) -> Self:
        """Open a file and check its name and its first bytes.

        Args:
            path: a file with one of the `SUFFIXES`, each also with ``.gz``; ``-`` is standard input,
                compressed or not.
            reading: how to interpret it.
            stdin: read in place of the process's own standard input, and left open.
            stretch, patience, copy: see `ByteSource`.

        Raises:
            UnreadableFile: missing, a directory, no permission, an unknown suffix, not gzip although the name says so,
                data in another format, CSV without a usable header, or no known time although `reading` asks for it.
        """
        gzipped = path.lower().endswith(".gz")
        source = ByteSource(path, gzipped=gzipped, stdin=stdin, stretch=stretch, patience=patience, copy=copy)
        try:
            return cls(source, path, reading or Reading())
        except BaseException:
            source.close()
            raise

    @property
    def bytes_read(self) -> int:
        """How many bytes of the file on disk have been read, for comparison with `size_bytes`."""
        return self._bytes.bytes_read

    @property
    def text_bytes(self) -> int:
        """How many bytes of text, after decompression, have been read."""
        return self._bytes.text_bytes

    def kept(self) -> Stretch | None:
        """Return what was read so far, to read it again; see `ByteSource.kept`."""
        return self._bytes.kept()

    def close(self) -> None:
        self._items.close()
        self._bytes.close()

    def __iter__(self) -> Iterator[Numbered]:
        return self._items

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ChangeFile {self.source} [{self.bytes_read} of {self.size_bytes} bytes]>"

    def _read(self, form: Format, delimiter: str, reading: Reading) -> Generator[Numbered, None, None]:
        match form:
            case "jsonl":
                return _from_lines(lines(self._bytes.read), self.source, reading)
            case "json":
                return _from_records(self._bytes.read, self.source, reading)
            case "csv":
                all_rows = rows(lines(self._bytes.read), delimiter)
                header = _header(all_rows, self.source, reading)
                return _from_rows(all_rows, header, delimiter, self.source) if header else _nothing()


def check_name(path: str, reading: Reading) -> None:
    """Check the file's name, without opening the file.

    Raises:
        UnreadableFile: neither the name nor `reading` says which format the file has.
    """
    _form(path, reading, b"")
    if reading.as_of == "mtime":
        raise _timeless(STDIN_NAME if path == STDIN else path)


def _modified_at(path: str, source: ByteSource) -> float:
    """Return when the file was last changed, Unix time in seconds.

    Raises:
        UnreadableFile: the time is not known, or is no valid `as_of`.
    """
    if path == STDIN or source.modified_at is None:
        raise _timeless(source.name)
    try:
        check_as_of(source.modified_at, datetime.fromtimestamp(source.modified_at, UTC))
    except InvalidChange as error:
        raise UnreadableFile(
            Refusal(source.name, 0, f"the time when it was last changed cannot be used: {error}")
        ) from None
    return source.modified_at


def _timeless(name: str) -> UnreadableFile:
    reason = "only a regular file tells when it was last changed: say --as-of and the time"
    return UnreadableFile(Refusal(name, 0, reason))


def _form(path: str, reading: Reading, start: bytes) -> tuple[Format, str]:
    """Return the format and the delimiter, according to the name and the flags."""
    stem = path.lower().removesuffix(".gz")
    named = [of_suffix for suffix, of_suffix in _SUFFIXES.items() if stem.endswith(suffix)]
    if path != STDIN and not named and reading.format is None:
        try:
            form_of(start, "jsonl", reading, ",")
        except ValueError as error:  # the content explains more than the name
            raise UnreadableFile(Refusal(path, 0, str(error))) from None
        known = f"unknown suffix: the name must end in {SUFFIXES}, each also with .gz"
        raise UnreadableFile(Refusal(path, 0, f"{known}; for any other name say --format {' or '.join(FORMATS)}"))
    form, delimiter = named[0] if named else ("jsonl", ",")
    return reading.format or form, reading.delimiter or delimiter


def _header(all_rows: Iterator[Row], source: str, reading: Reading) -> Header | None:
    """Return the header; None if the file holds no row."""
    row = next(all_rows, None)
    if row is not None and separator_line(row.raw):
        row = next(all_rows, None)
    if row is None:
        return None
    try:
        return Header.of(row, reading)
    except InvalidChange as error:
        raise UnreadableFile(Refusal(source, row.line, str(error), row.raw, row.cut)) from None


def _nothing() -> Generator[Numbered, None, None]:
    yield from ()


def _from_lines(all_lines: Iterator[bytes | CutLine], source: str, reading: Reading) -> Generator[Numbered, None, None]:
    item: Item
    parse = line_parser(reading)
    for number, line in enumerate(all_lines, 1):
        if isinstance(line, CutLine):
            yield number, Refusal(source, number, line.reason, line.start, cut=True)
            continue
        try:
            item = parse(line)
        except InvalidChange as error:
            if not line.strip():
                continue
            item = retake(Refusal(source, number, str(error), line, hint=error.hint), reading)
        yield number, item


def _from_records(read: Callable[[], bytes], source: str, reading: Reading) -> Generator[Numbered, None, None]:
    item: Item
    parse = line_parser(reading)
    for number, line, raw, reason, cut in records(read):
        if reason:
            yield number, Refusal(source, line, reason, raw, cut, record=number)
            continue
        try:
            item = parse(raw)
        except InvalidChange as error:
            item = retake(Refusal(source, line, str(error), raw, record=number, hint=error.hint), reading)
        yield number, item


def _from_rows(all_rows: Iterator[Row], header: Header, delimiter: str, source: str) -> Generator[Numbered, None, None]:
    """Read rows; refuse those after another file's header row, since the meaning of their cells is in doubt."""
    item: Item
    other: Row | None = None

    def refusal(row: Row, reason: str, hint: str = "") -> Refusal:
        above = header.raw if other is None else other.raw
        return Refusal(source, row.line, reason, row.raw, row.cut, above, delimiter, hint=hint)

    for row in all_rows:
        if (names := header.cells_of_header(row)) is not None:
            other = None if names == header.names else row
            item = refusal(row, f"another header row, {_JOINED}" if other else f"the header row again, {_JOINED}")
        elif other is not None:
            item = refusal(row, f"it stands under another header, in line {other.line}: {_APART}")
        else:
            try:
                item = header.change(row)
            except InvalidChange as error:
                item = None if row.is_blank else refusal(row, str(error), error.hint)
        yield row.line, item
