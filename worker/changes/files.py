"""Files of changes: JSONL and CSV, compressed or not, read as a stream of changes and refusals."""

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import BinaryIO, Literal, Self, get_args

from worker.changes.change import InvalidChange, MetadataChange, Mode
from worker.changes.jsonl import parse_line
from worker.changes.lines import CutLine, lines
from worker.changes.refusal import Refusal, UnreadableFile
from worker.changes.rejects import RejectsFile, UnwritableRejects, retake
from worker.changes.rows import Header, Row, rows
from worker.changes.source import STDIN, ByteSource

__all__ = ["FORMATS", "ChangeFile", "Format", "Refusal", "RejectsFile", "UnreadableFile", "UnwritableRejects"]

Format = Literal["jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


class ChangeFile:
    """An open file of changes: iterating, once, yields each change or refusal in the file's order.

    Memory does not grow with the file. Damaged data yields the lines before the damage, then a refusal.

    Args:
        source: the bytes.
        mode: of a change that does not name one.
        form: of the lines.

    Raises:
        UnreadableFile: a CSV file has no usable header.
    """

    def __init__(self, source: ByteSource, *, mode: Mode, form: Format) -> None:
        self.source = source.name
        self.size_bytes = source.size_bytes
        self._bytes = source
        all_lines = lines(source.read)
        if form == "csv":
            all_rows = rows(all_lines)
            items = _from_rows(all_rows, _header(all_rows, source.name), source.name, mode)
        else:
            items = _from_lines(all_lines, source.name, mode)
        self._items = _or_refusal(items, source.name)

    @classmethod
    def open(
        cls,
        path: str,
        *,
        mode: Mode = "merge",
        format: Format | None = None,  # noqa: A002 -- the word that users know
        stdin: BinaryIO | None = None,
    ) -> Self:
        """Open a file and check what can be told from its name and start.

        Args:
            path: of a file whose name ends in ``.jsonl``, ``.ndjson`` or ``.csv``, each also with ``.gz``; ``-`` is
                standard input, compressed or not.
            mode: of a change that does not name one.
            format: whatever the name says; standard input is ``jsonl`` unless told.
            stdin: read in place of the process's own standard input, and left open.

        Raises:
            UnreadableFile: missing, a directory, no permission, empty, an unknown suffix, not gzip although the name
                says so, CSV without a usable header.
        """
        source = ByteSource(path, gzipped=path.lower().endswith(".gz"), stdin=stdin)
        try:
            return cls(source, mode=mode, form=format or _form(path))
        except BaseException:
            source.close()
            raise

    @property
    def bytes_read(self) -> int:
        """How far reading has come in the file as it lies on disk, for comparison with `size_bytes`."""
        return self._bytes.bytes_read

    def close(self) -> None:
        self._items.close()
        self._bytes.close()

    def __iter__(self) -> Iterator[MetadataChange | Refusal]:
        return self._items

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ChangeFile {self.source} [{self.bytes_read} of {self.size_bytes} bytes]>"


def _form(path: str) -> Format:
    if path == STDIN:
        return "jsonl"
    stem = path.lower().removesuffix(".gz")
    for suffix, form in _SUFFIXES.items():
        if stem.endswith(suffix):
            return form
    raise UnreadableFile(
        Refusal(path, 0, "unknown suffix: the name must end in .jsonl, .ndjson or .csv, each also with .gz")
    )


def _header(all_rows: Iterator[Row], source: str) -> Header:
    row = next(all_rows, None)
    if row is None:
        raise UnreadableFile(Refusal(source, 0, "the file has no header row"))
    try:
        return Header.of(row)
    except InvalidChange as error:
        raise UnreadableFile(Refusal(source, row.line, str(error), row.raw, row.cut)) from None


def _from_lines(all_lines: Iterator[bytes | CutLine], source: str, mode: Mode) -> Iterator[MetadataChange | Refusal]:
    item: MetadataChange | Refusal
    for number, line in enumerate(all_lines, 1):
        if isinstance(line, CutLine):
            yield Refusal(source, number, line.reason, line.start, cut=True)
            continue
        try:
            item = parse_line(line, mode)
        except InvalidChange as error:
            if not line.strip():
                continue
            refusal = Refusal(source, number, str(error), line)
            item = retake(refusal, mode) or refusal
        yield item


def _from_rows(all_rows: Iterator[Row], header: Header, source: str, mode: Mode) -> Iterator[MetadataChange | Refusal]:
    item: MetadataChange | Refusal
    for row in all_rows:
        try:
            item = header.change(row, mode)
        except InvalidChange as error:
            item = Refusal(source, row.line, str(error), row.raw, row.cut, header.raw)
        yield item


def _or_refusal(
    items: Iterator[MetadataChange | Refusal], source: str
) -> Generator[MetadataChange | Refusal, None, None]:
    """Pass the items on; where there are none, say so."""
    yield next(items, None) or Refusal(source, 0, "the file holds no change")
    yield from items
