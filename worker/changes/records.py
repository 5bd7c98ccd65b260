"""JSON values out of pieces of bytes: those of an array, or one after the other, on as many lines as they like.

The end of a value is found by its braces, so that neither the array nor its lines have to fit into memory. A value
that has no end, or is too long, is refused with its first line alone; the lines after that are read afresh.
"""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

from worker.changes.lines import CUT_LINE_BYTES, MAX_LINE_BYTES
from worker.changes.source import DamagedData

# A change has two levels; more are read to say what is wrong with them.
_MAX_DEPTH = 64

_STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
_BLANK = re.compile(rb"(?:[\s,]|\xef\xbb\xbf)*+")
_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+")
_BRACE = re.compile(_PLAIN.pattern + rb"[{}\[\]]")
# A change, in one go: by far most of what there is.
_CHANGE = re.compile(rb"\{%b(?:\{%b\}%b)*+\}" % ((_PLAIN.pattern,) * 3))
_CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}
_SCALAR = re.compile(rb"(?:" + _STRING + rb'|[^\n,"{}\[\]])++')


class Record(NamedTuple):
    """One value.

    Args:
        number: its place in the file, from 1.
        line: where it starts, from 1.
        raw: its text; where it is broken, of its first line.
        reason: why there is no end to it; None where there is one.
        cut: `raw` is only its start.
    """

    number: int
    line: int
    raw: bytes
    reason: str | None = None
    cut: bool = False


def spans_lines(start: bytes) -> bool:
    """Whether this is the start of JSON that does not have an object to a line: of an array, or of an object."""
    first, newline, _ = start.partition(b"\n")
    if first.startswith(b"["):
        return True
    if not first.startswith(b"{") or not newline:
        return False
    text = _Text(BytesIO(first).read)
    text.first()
    try:
        text.end()
    except _Broken as broken:
        return broken.is_open
    return False


def records(read: Callable[[], bytes]) -> Iterator[Record]:
    """Split what is read into values; blanks, commas between them, and the brackets of the array are left out.

    Args:
        read: returns the next piece, or nothing at the end; may raise `DamagedData`.
    """
    text = _Text(read)
    number = 0
    array_from: int | None = None
    while first := text.first():
        if first == b"[" and array_from is None:
            array_from = text.line
            text.skip(1)
        elif first == b"]" and array_from is not None:
            array_from = None
            text.skip(1)
        else:
            number += 1
            record = _record(text, number, first)
            yield record
            if record.reason and text.damage:
                return
    if text.damage:
        yield Record(number + 1, text.line, b"", text.damage, cut=True)
    elif array_from is not None:
        reason = f"the array that starts in line {array_from} has no end: the file was cut off"
        yield Record(number + 1, text.line, b"", reason)


def _record(text: "_Text", number: int, first: bytes) -> Record:
    line = text.line
    reason = "not JSON: expecting an object"
    if first in (b"{", b"["):
        try:
            return Record(number, line, text.take(text.end()))
        except _Broken as broken:
            reason = str(broken)
    elif size := text.scalar():
        return Record(number, line, text.take(size))
    if text.damage:
        return Record(number, line, text.take(CUT_LINE_BYTES), text.damage, cut=True)
    raw, cut = text.take_line()
    return Record(number, line, raw, reason, cut=cut)


class _Broken(Exception):
    """A value has no end.

    Args:
        is_open: it may have one further on.
    """

    def __init__(self, reason: str, *, is_open: bool = False) -> None:
        super().__init__(reason)
        self.is_open = is_open


class _Text:
    """What was read and is not done with yet, and the number of the line that is reached."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.line = 1
        self.damage: str | None = None
        self._read = read
        self._data = b""
        self._at = 0

    def first(self) -> bytes:
        """Go on to the next value, and return its first byte; nothing at the end."""
        while True:
            match = _BLANK.match(self._data, self._at)
            self.skip((match.end() if match else self._at) - self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self.more():
                return b""

    def skip(self, size: int) -> None:
        """Leave out so many bytes."""
        self.line += self._data.count(b"\n", self._at, self._at + size)
        self._at += size

    def take(self, size: int) -> bytes:
        """Return so many bytes."""
        taken = self._data[self._at : self._at + size]
        self.skip(size)
        return taken

    def end(self) -> int:
        """Find how long the object or array is that starts here.

        Raises:
            _Broken: it has no end, or one too far off.
        """
        match = _CHANGE.match(self._data, self._at)
        if match and match.end() - self._at <= MAX_LINE_BYTES:
            return match.end() - self._at
        open_: list[int] = []
        scanned = self._at
        while True:
            if match := _BRACE.match(self._data, scanned):
                scanned = match.end()
                self._count(self._data[scanned - 1], open_)
                if not open_ and scanned - self._at <= MAX_LINE_BYTES:
                    return scanned - self._at
            if len(self._data) - self._at > MAX_LINE_BYTES and not (match and open_):
                raise _Broken("the record is longer than 1 MiB")
            if not match:
                plain = _PLAIN.match(self._data, scanned)
                string = plain.end() if plain else scanned
                if (newline := self._data.find(b"\n", string)) >= 0:
                    line = self.line + self._data.count(b"\n", self._at, newline)
                    raise _Broken(f"not JSON: a string in line {line} has no end")
                is_open = string == len(self._data)
                scanned -= self._at
                if not self.more():
                    raise _Broken("not JSON: it has no end", is_open=is_open)

    def _count(self, brace: int, open_: list[int]) -> None:
        """Add an opening brace to those that are open, or take the one off that is closed."""
        if brace in _CLOSED_BY:
            open_.append(_CLOSED_BY[brace])
            if len(open_) > _MAX_DEPTH:
                raise _Broken("nested too deeply")
        elif open_.pop() != brace:
            raise _Broken(f"not JSON: {chr(brace)!r} closes what it does not open")

    def scalar(self) -> int:
        """Find how long the word, number or string is that starts here; 0 where there is none."""
        while True:
            match = _SCALAR.match(self._data, self._at)
            size = match.end() - self._at if match else 0
            following = self._data[self._at + size : self._at + size + 1]
            is_whole = following not in (b"", b'"') or self._data.find(b"\n", self._at + size) >= 0
            if is_whole or len(self._data) - self._at > MAX_LINE_BYTES or not self.more():
                return size if size <= MAX_LINE_BYTES else 0

    def take_line(self) -> tuple[bytes, bool]:
        """Return the rest of the line, and whether it was cut, being too long."""
        taken = b""
        while True:
            newline = self._data.find(b"\n", self._at)
            end = len(self._data) if newline < 0 else newline
            if len(taken) <= MAX_LINE_BYTES:
                taken += self._data[self._at : end]
            self.skip(end - self._at)
            if newline >= 0 or not self.more():
                break
        is_cut = len(taken) > MAX_LINE_BYTES
        return (taken[:CUT_LINE_BYTES] if is_cut else taken), is_cut

    def more(self) -> bool:
        """Read on; False at the end."""
        if self.damage:
            return False
        try:
            piece = self._read()
        except DamagedData as damage:
            self.damage = str(damage)
            return False
        self._data = self._data[self._at :] + piece
        self._at = 0
        return bool(piece)
