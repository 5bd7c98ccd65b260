"""Split CSV (RFC 4180) into rows and cells, and convert rows to changes.

The standard library's reader does not fit. It takes everything after a stray quote for one cell, and limits cells by a
setting of the whole process. It also accepts a quote inside an unquoted cell, which other readers do not.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from worker.changes.change import InvalidChange, MetadataChange, check_key, folded, json_type
from worker.changes.jsonl import ID_NAMES, JOINED, change_of, decode_utf8, parse_object
from worker.changes.lines import BYTE_ORDER_MARK, CUT_LINE_BYTES, MAX_LINE_BYTES, CutLine
from worker.changes.reading import FIELDS, ID_FIELD, Reading
from worker.changes.times import as_of_from
from worker.terminal import shown

_KEY_PREFIX = "metadata."
_PANDAS_INDEX = re.compile(r"Unnamed: \d+(_level_\d+)?")
_ID_START = b"chatcmpl-"
_SWALLOWS = "a quote opens that is closed on a later line, but the lines between look like rows of their own"
_INVISIBLE = " \t\r\n\v\f\xa0\ufeff\u200b\u200c\u200d\u2060"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file.

    Args:
        line: the physical line where it starts, from 1.
        raw: its text, without the last line end.
        cells: its cells, not decoded; or the reason why they cannot be told apart.
        cut: whether `raw` is only its start.
        is_marked: whether a byte order mark precedes it, which is no part of the cells.
    """

    line: int
    raw: bytes
    cells: list[bytes] | InvalidChange
    cut: bool = False
    is_marked: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether all cells are empty and no byte order mark precedes them."""
        return isinstance(self.cells, list) and not self.is_marked and not b"".join(self.cells).strip()


@dataclass(frozen=True, slots=True)
class Header:
    """Which column has which meaning.

    Args:
        raw: the row itself.
        columns: the names, decoded.
        names: the same, not decoded.
        completion_id, mode, change_id, as_of, metadata: positions of the columns with these names.
        keys: position and metadata key of every other column.
        reading: how to interpret rows.
    """

    raw: bytes
    columns: tuple[str, ...]
    names: list[bytes]
    completion_id: int
    mode: int | None
    change_id: int | None
    as_of: int | None
    metadata: int | None
    keys: tuple[tuple[int, str], ...]
    reading: Reading

    @classmethod
    def of(cls, row: Row, reading: Reading) -> Self:
        """Parse the header row.

        Raises:
            InvalidChange: it has no id column, a duplicate or empty name, or a name that cannot be a metadata key or
                looks like a misspelt field.
        """
        if isinstance(row.cells, InvalidChange):
            raise row.cells
        names = [decode_utf8(cell, f"column name {number}") for number, cell in enumerate(row.cells, 1)]
        if reading.id_column not in names:  # first: this row may be data, which no message may show
            raise InvalidChange(_no_id(names, reading))
        own: dict[str, int] = {}
        keys: dict[str, int] = {}
        for position, name in enumerate(names):
            is_own = name in reading.fields()
            if reading.ignore_unknown and not is_own and not name.startswith(_KEY_PREFIX):
                continue
            key = name if is_own else _key(name, position)
            known = own if is_own else keys
            if key in known:
                raise InvalidChange(f"the header names {shown(key)} twice")
            known[key] = position
        return cls(
            raw=row.raw,
            columns=tuple(names),
            names=row.cells,
            completion_id=own[reading.id_column],
            mode=own.get("mode"),
            change_id=own.get("change_id"),
            as_of=own.get("as_of"),
            metadata=own.get("metadata"),
            keys=tuple((position, key) for key, position in keys.items()),
            reading=reading,
        )

    def change(self, row: Row) -> MetadataChange | None:
        """Convert a row to a change; None if it sets nothing in mode merge.

        Raises:
            InvalidChange: the row is ragged, or no valid change.
        """
        if isinstance(row.cells, InvalidChange):
            raise row.cells
        if row.is_marked:
            raise InvalidChange(f"the row {JOINED}")
        if len(row.cells) != len(self.columns):
            raise InvalidChange(f"the row has {len(row.cells)} cells where the header has {len(self.columns)}")
        cells = self._decoded(row.cells)
        mode: Any = self.reading.mode if self.mode is None else cells[self.mode] or self.reading.mode
        given = None if self.metadata is None else cells[self.metadata]
        metadata = _metadata(given) if given else {}
        removes = self.reading.empty == "remove" and mode == "merge"
        for position, key in self.keys:
            if cells[position]:
                if key in metadata:
                    raise InvalidChange(f"duplicate key {shown(key)}: in the column metadata and in one of its own")
                metadata[key] = cells[position]
            elif removes:
                metadata.setdefault(key, None)
        change_id = None if self.change_id is None else cells[self.change_id] or None
        as_of = None if self.as_of is None else as_of_from(cells[self.as_of] or None)
        if given:
            return change_of((cells[self.completion_id], metadata, mode, change_id, as_of), self.reading)
        as_of = self.reading.as_of_seconds if as_of is None else as_of
        change = MetadataChange(cells[self.completion_id], metadata, mode, change_id, as_of)
        return change if metadata or self._may_set_nothing(mode) else None

    def _may_set_nothing(self, mode: str) -> bool:
        """Whether a row of blank cells is a change; in mode replace it would erase everything.

        Raises:
            InvalidChange: the file does not say that erasing is meant.
        """
        if mode == "replace" and self.reading.empty == "keep":
            raise InvalidChange(
                "every cell is blank, and in mode replace that would erase all metadata",
                hint="--empty remove takes a blank cell for a value that is to go",
            )
        return mode == "replace"

    def _decoded(self, cells: Sequence[bytes]) -> list[str]:
        try:
            return [cell.decode() for cell in cells]
        except UnicodeDecodeError:
            for column, cell in zip(self.columns, cells, strict=True):
                decode_utf8(cell, f"the cell of column {shown(column)}")
            raise

    def cells_of_header(self, row: Row) -> list[bytes] | None:
        """Return the names if the row is a header row, of this file or of another joined to it; else None."""
        cells = row.cells
        if isinstance(cells, InvalidChange):
            return None
        if self.names[self.completion_id] not in cells:
            return None
        if self.reading.id_column == ID_FIELD or len(cells) <= self.completion_id:
            return cells
        return cells if cells[self.completion_id] in self.names else None


def _no_id(names: Sequence[str], reading: Reading) -> str:
    wanted = ID_NAMES if reading.id_column == ID_FIELD else {folded(reading.id_column)}
    reason = f"the header has no column {reading.id_column}"
    near = next((name for name in names if folded(name) in wanted and name.isprintable()), None)
    return reason if near is None else f"{reason}, but {shown(near)}: --id-column {shown(near)} takes that one"


def _key(name: str, position: int) -> str:
    """Return the metadata key that a column of this name sets.

    Raises:
        InvalidChange: the name is empty, or looks like a mistake.
    """
    key = name.removeprefix(_KEY_PREFIX)
    if not key:
        is_index = " (the index that pandas writes? index=False leaves it out)" if position == 0 else ""
        raise InvalidChange(f"column {position + 1} of the header has no name{is_index}")
    check_key(key)
    if key == name:
        _check_no_mistake(name)
    return key


def _check_no_mistake(name: str) -> None:
    as_key = f"{shown(_KEY_PREFIX + name)} for a metadata key of that name"
    for field in FIELDS:
        if folded(name) == folded(field):
            raise InvalidChange(f"column {shown(name)} is nearly {field}: write {field}, or {as_key}")
    prefix, dot, key = name.partition(".")
    if dot and folded(prefix) == folded(_KEY_PREFIX[:-1]):
        raise InvalidChange(f"column {shown(name)} is nearly {shown(_KEY_PREFIX + key)}: write that, or {as_key}")
    if name != name.strip(_INVISIBLE):
        plain = shown(name.strip(_INVISIBLE))
        raise InvalidChange(f"column {shown(name)} has white space around it: write {plain}, or {as_key}")
    if _PANDAS_INDEX.fullmatch(name):
        raise InvalidChange(
            f"column {shown(name)} is the index that pandas writes: index=False leaves it out; {as_key}"
        )


def rows(lines: Iterator[bytes | CutLine], delimiter: str) -> Iterator[Row]:
    """Join lines to rows, leaving out blank ones.

    A row continues while a quote is open. If its cells then make no sense, its further lines look like rows, or the
    quote is still open after 1 MiB, the quote was a stray one. Then the lines up to it are refused, and reading starts
    afresh on the next line.
    """
    source = _Rewindable(lines)
    separator = delimiter.encode()
    while (line := source.take()) is not None:
        start = source.number
        if isinstance(line, CutLine):
            yield Row(start, line.start, InvalidChange(line.reason), cut=True)
        elif line.strip():
            yield _row(start, [line, *_rest_of_row(line, source)], source, separator)


def _row(start: int, taken: list[bytes], source: "_Rewindable", delimiter: bytes) -> Row:
    raw = b"\n".join(taken).removesuffix(b"\r")
    is_marked = raw.startswith(BYTE_ORDER_MARK)
    try:
        cells = _split(raw.removeprefix(BYTE_ORDER_MARK), delimiter)
    except _StrayQuote as stray:
        end = 1 + raw.count(b"\n", 0, stray.position + is_marked * len(BYTE_ORDER_MARK))
        source.give_back(taken[end:])
        place = "" if end == 1 else f" (line {start + end - 1})"
        return Row(start, b"\n".join(taken[:end]).removesuffix(b"\r"), InvalidChange(f"{stray}{place}"))
    if len(taken) > 1 and any(_looks_like_a_row(line, delimiter, len(cells)) for line in taken[1:]):
        source.give_back(taken[1:])
        return Row(start, taken[0].removesuffix(b"\r"), InvalidChange(_SWALLOWS))
    if len(raw) > MAX_LINE_BYTES:
        return Row(start, raw[:CUT_LINE_BYTES], InvalidChange("the row is longer than 1 MiB"), cut=True)
    return Row(start, raw, cells, is_marked=is_marked)


def _looks_like_a_row(line: bytes, delimiter: bytes, cells: int) -> bool:
    """Whether a further line of a row has as many cells as the row itself, and a completion's id in one of them."""
    found = line.split(delimiter)
    return len(found) == cells and any(each.startswith(_ID_START) for each in found)


def _rest_of_row(line: bytes, source: "_Rewindable") -> list[bytes]:
    """Take lines until every quote is closed, the row is too long, or the input ends."""
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


@cache
def _cell(delimiter: bytes) -> re.Pattern[bytes]:
    """Return a pattern for one cell and the delimiter after it."""
    mark = re.escape(delimiter)
    return re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"%b\r\n]*+))(%b|\Z)' % (mark, mark))


def _split(row: bytes, delimiter: bytes) -> list[bytes]:
    if b'"' not in row and b"\r" not in row:
        return row.split(delimiter)
    cell = _cell(delimiter)
    cells = []
    position = 0
    while match := cell.match(row, position):
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
    """Lines that can be put back, and the number of the last one taken."""

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
    """Decode the cell of the column `metadata`; `MetadataChange` validates its values."""
    try:
        metadata = parse_object(text)
    except InvalidChange as error:
        raise InvalidChange(f"column metadata: {error}") from None
    if not isinstance(metadata, dict):
        raise InvalidChange(f"column metadata must hold a JSON object, not {json_type(metadata)}")
    return metadata
