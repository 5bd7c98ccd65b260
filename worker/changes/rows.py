"""Rows of CSV (RFC 4180): where one ends, what its cells are, which change it is.

The standard library's reader is not used: it takes everything after a stray quote for one cell, bounds cells by a
setting that the whole process shares, and reads a quote inside a cell without quotes as text where others do not.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, cast

from worker.changes.change import InvalidChange, MetadataChange, Mode, check_key, json_type, shown
from worker.changes.jsonl import FIELDS, decode_utf8, parse_object
from worker.changes.lines import CUT_LINE_BYTES, MAX_LINE_BYTES, CutLine

_KEY_PREFIX = "metadata."
_CELL = re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",\r\n]*+))(,|\Z)')


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in the file.

    Args:
        line: the physical line where it starts, from 1.
        raw: its text, without the last end of line.
        cells: what it holds, not decoded; or the reason why nobody can tell.
        cut: `raw` is only its start.
    """

    line: int
    raw: bytes
    cells: list[bytes] | InvalidChange
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """Which cell of a row is what.

    Args:
        raw: the row itself.
        columns: the names, as they stand there.
        completion_id, mode, change_id, metadata: positions of the columns with these names.
        keys: position and metadata key of every other column.
    """

    raw: bytes
    columns: tuple[str, ...]
    completion_id: int
    mode: int | None
    change_id: int | None
    metadata: int | None
    keys: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, row: Row) -> Self:
        """Understand the header row.

        Raises:
            InvalidChange: it names no `completion_id`, or something twice, or nothing, or what cannot be a key.
        """
        if isinstance(row.cells, InvalidChange):
            raise row.cells
        names = [decode_utf8(cell, f"column name {number}") for number, cell in enumerate(row.cells, 1)]
        if "completion_id" not in names:  # before any name is shown: this row may be data
            raise InvalidChange("the header has no column completion_id")
        own: dict[str, int] = {}
        keys: dict[str, int] = {}
        for position, name in enumerate(names):
            key = name.removeprefix(_KEY_PREFIX)
            if not key:
                raise InvalidChange(f"column {position + 1} of the header has no name")
            known = own if name in FIELDS else keys
            if key in known:
                raise InvalidChange(f"the header names {shown(key)} twice")
            check_key(key)
            known[key] = position
        return cls(
            raw=row.raw,
            columns=tuple(names),
            completion_id=own["completion_id"],
            mode=own.get("mode"),
            change_id=own.get("change_id"),
            metadata=own.get("metadata"),
            keys=tuple((position, key) for key, position in keys.items()),
        )

    def change(self, row: Row, mode: Mode) -> MetadataChange:
        """Read a row under this header. An empty cell says nothing.

        Args:
            mode: of a row that does not name one.

        Raises:
            InvalidChange: the row is ragged, or no valid change.
        """
        if isinstance(row.cells, InvalidChange):
            raise row.cells
        if len(row.cells) != len(self.columns):
            raise InvalidChange(f"the row has {len(row.cells)} cells where the header has {len(self.columns)}")
        cells = [
            decode_utf8(cell, f"the cell of column {shown(column)}")
            for column, cell in zip(self.columns, row.cells, strict=True)
        ]
        metadata = {} if self.metadata is None else _metadata(cells[self.metadata])
        for position, key in self.keys:
            if cells[position]:
                if key in metadata:
                    raise InvalidChange(f"duplicate key {shown(key)}: in the column metadata and in one of its own")
                metadata[key] = cells[position]
        return MetadataChange(
            cells[self.completion_id],
            metadata,
            mode if self.mode is None else cast("Mode", cells[self.mode] or mode),
            None if self.change_id is None else cells[self.change_id] or None,
        )


def rows(lines: Iterator[bytes | CutLine]) -> Iterator[Row]:
    """Put lines together to rows, leaving out blank ones.

    A row goes on as long as a quote is open. Where its cells then make no sense, or the quote is still open after
    1 MiB, it was a stray one: the lines up to that quote are refused, and the ones after it are read afresh.
    """
    source = _Rewindable(lines)
    while (line := source.take()) is not None:
        start = source.number
        if isinstance(line, CutLine):
            yield Row(start, line.start, InvalidChange(line.reason), cut=True)
        elif line.strip():
            yield _row(start, [line, *_rest_of_row(line, source)], source)


def _row(start: int, taken: list[bytes], source: "_Rewindable") -> Row:
    raw = b"\n".join(taken).removesuffix(b"\r")
    try:
        cells = _split(raw)
    except _StrayQuote as stray:
        end = 1 + raw.count(b"\n", 0, stray.position)
        source.give_back(taken[end:])
        place = "" if end == 1 else f" (line {start + end - 1})"
        return Row(start, b"\n".join(taken[:end]).removesuffix(b"\r"), InvalidChange(f"{stray}{place}"))
    if len(raw) > MAX_LINE_BYTES:
        return Row(start, raw[:CUT_LINE_BYTES], InvalidChange("the row is longer than 1 MiB"), cut=True)
    return Row(start, raw, cells)


def _rest_of_row(line: bytes, source: "_Rewindable") -> list[bytes]:
    """Take lines until every quote has its partner, the row is too long, or there is nothing more."""
    rest: list[bytes] = []
    size = len(line)
    is_open = line.count(b'"') % 2 == 1
    while is_open and size <= MAX_LINE_BYTES:
        following = source.take()
        if following is None:
            break
        if isinstance(following, CutLine):
            source.give_back([following])
            break
        rest.append(following)
        size += 1 + len(following)
        is_open ^= following.count(b'"') % 2 == 1
    return rest


def _split(row: bytes) -> list[bytes]:
    if b'"' not in row and b"\r" not in row:
        return row.split(b",")
    cells = []
    position = 0
    while match := _CELL.match(row, position):
        quoted, plain, comma = match.groups()
        cells.append(plain if quoted is None else quoted.replace(b'""', b'"'))
        if not comma:
            return cells
        position = match.end()
    number = len(cells) + 1
    if row.startswith(b'"', position):
        reason = f"the quote that opens cell {number} has no end, or not at the cell's end; quotes inside are doubled"
    else:
        reason = f"cell {number} holds a quote or a carriage return, but is not enclosed in quotes"
    raise _StrayQuote(reason, position)


class _StrayQuote(Exception):
    """A cell breaks the rules of quoting.

    Args:
        position: where the cell starts, in the row's bytes.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


class _Rewindable:
    """Lines that can be given back, and the number of the one that was taken last."""

    def __init__(self, lines: Iterator[bytes | CutLine]) -> None:
        self.number = 0
        self._lines = lines
        self._returned: deque[bytes | CutLine] = deque()

    def take(self) -> bytes | CutLine | None:
        line = self._returned.popleft() if self._returned else next(self._lines, None)
        if line is not None:
            self.number += 1
        return line

    def give_back(self, lines: Sequence[bytes | CutLine]) -> None:
        self.number -= len(lines)
        self._returned.extendleft(reversed(lines))


def _metadata(text: str) -> dict[str, str | None]:
    """Read the cell of the column `metadata`; what its values are is for the change to judge."""
    if not text:
        return {}
    try:
        metadata = parse_object(text)
    except InvalidChange as error:
        raise InvalidChange(f"column metadata: {error}") from None
    if not isinstance(metadata, dict):
        raise InvalidChange(f"column metadata must hold a JSON object, not {json_type(metadata)}")
    return metadata
