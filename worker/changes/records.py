"""Split pieces of bytes into JSON values: those of an array, or one after another, on any number of lines.

Braces mark the end of a value, so neither the array nor its lines have to fit into memory. A value without an end, or
one that is too long, is refused with its first line only; reading starts afresh on the next line.
"""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

from worker.changes.lines import CUT_LINE_BYTES, MAX_LINE_BYTES
from worker.changes.source import DamagedData

# A change has two levels; deeper values are read so that the error can name the mistake.
_MAX_DEPTH = 64

_STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
_BLANK = re.compile(rb"(?:[\s,]|\xef\xbb\xbf)*+")
_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+")
_BRACE = re.compile(_PLAIN.pattern + rb"[{}\[\]]")
# A change without nested values, matched at once: by far the most common record.
_CHANGE = re.compile(rb"\{%b(?:\{%b\}%b)*+\}" % ((_PLAIN.pattern,) * 3))
_CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}
_SCALAR = re.compile(rb"(?:" + _STRING + rb'|[^\n,"{}\[\]])++')


class Record(NamedTuple):
    """One value.

    Args:
        number: its place in the file, from 1.
        line: where it starts, from 1.
        raw: its text; the first line only, if the value is broken.
        reason: why it has no end; None if it has one.
        cut: whether `raw` is only its start.
    """

    number: int
    line: int
    raw: bytes
    reason: str | None = None
    cut: bool = False


def spans_lines(start: bytes) -> bool:
    """Whether this starts JSON that is not one object per line: an array, or an object over several lines."""
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
    """Split the bytes into values; blanks, commas between values and the array's brackets are left out.

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
        is_open: whether its end may follow in later input.
    """

    def __init__(self, reason: str, *, is_open: bool = False) -> None:
        super().__init__(reason)
        self.is_open = is_open


class _Text:
    """The bytes that were read and not consumed yet, and the current line number."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.line = 1
        self.damage: str | None = None
        self._read = read
        self._data = b""
        self._at = 0

    def first(self) -> bytes:
        """Move to the next value and return its first byte; nothing at the end."""
        while True:
            match = _BLANK.match(self._data, self._at)
            self.skip((match.end() if match else self._at) - self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self.more():
                return b""

    def skip(self, size: int) -> None:
        """Drop so many bytes."""
        self.line += self._data.count(b"\n", self._at, self._at + size)
        self._at += size

    def take(self, size: int) -> bytes:
        """Return so many bytes."""
        taken = self._data[self._at : self._at + size]
        self.skip(size)
        return taken

    def end(self) -> int:
        """Return the length of the object or array that starts here, in bytes.

        Raises:
            _Broken: it has no end, or is too long.
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
        """Push an opening brace, or pop the one that this brace closes."""
        if brace in _CLOSED_BY:
            open_.append(_CLOSED_BY[brace])
            if len(open_) > _MAX_DEPTH:
                raise _Broken("nested too deeply")
        elif open_.pop() != brace:
            raise _Broken(f"not JSON: {chr(brace)!r} closes what it does not open")

    def scalar(self) -> int:
        """Return the length of the word, number or string that starts here, in bytes; 0 if there is none."""
        while True:
            match = _SCALAR.match(self._data, self._at)
            size = match.end() - self._at if match else 0
            following = self._data[self._at + size : self._at + size + 1]
            is_whole = following not in (b"", b'"') or self._data.find(b"\n", self._at + size) >= 0
            if is_whole or len(self._data) - self._at > MAX_LINE_BYTES or not self.more():
                return size if size <= MAX_LINE_BYTES else 0

    def take_line(self) -> tuple[bytes, bool]:
        """Return the rest of the line, and whether it was cut because it is too long."""
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
        """Read more; False at the end."""
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
