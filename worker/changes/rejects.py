"""Refused lines on their way out to a file, and back in once they are repaired.

Each line of such a file is one JSON object: ``file``, ``line`` and ``reason`` say what was refused and why, ``text``
is the line as it was read, and ``header`` the one that a row of CSV stands under. Once ``text`` is repaired the file
can be enqueued as it is. A line that is not UTF-8 is ``base64`` in place of ``text``; ``"cut": true`` says that the
line goes on.
"""

import base64
import dataclasses
import json
import os
import stat
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from worker.changes.change import InvalidChange, MetadataChange, Mode, json_type
from worker.changes.jsonl import parse_line, parse_object
from worker.changes.refusal import Refusal
from worker.changes.rows import Header, Row, rows
from worker.changes.source import STDIN

_REQUIRED = frozenset({"file", "line", "reason"})
_ALLOWED = _REQUIRED | {"header", "text", "base64", "cut"}


class UnwritableRejects(Exception):
    """The file for refused lines cannot be written; the message is one sentence that names it."""


class RejectsFile:
    """A file of refused lines. It is created, or emptied, at once, and complete after every `write`.

    Args:
        path: where to write.
        inputs: the change files that will be read, as the user named them: none may be this one.

    Raises:
        UnwritableRejects: by `write` as well.
    """

    def __init__(self, path: str, *, inputs: Iterable[str] = ()) -> None:
        self.path = path
        self.written = 0
        if any(_is_same_file(path, name) for name in inputs):
            raise UnwritableRejects(f"{path}: refused lines cannot be written over the file that they are read from")
        try:
            # A file name that is not UTF-8 comes out as the escapes that JSON has for it.
            self._file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n", buffering=1)  # noqa: PTH123, SIM115 -- close() closes it; the path is shown as it was given
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None

    def write(self, refusal: Refusal) -> None:
        entry: dict[str, object] = {"file": refusal.source, "line": refusal.line, "reason": refusal.reason}
        if refusal.header is not None:
            entry["header"] = refusal.header.decode()
        if refusal.raw:
            try:
                entry["text"] = refusal.raw.decode()
            except UnicodeDecodeError:
                entry["base64"] = base64.b64encode(refusal.raw).decode()
        if refusal.cut:
            entry["cut"] = True
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._unwritable(error) from None
        self.written += 1

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError | ValueError) -> UnwritableRejects:
        reason = error.strerror if isinstance(error, OSError) else error
        return UnwritableRejects(f"{self.path}: refused lines cannot be written there: {reason}")


def retake(refusal: Refusal, mode: Mode) -> MetadataChange | Refusal | None:
    """Read a refused line as one of a rejects file; None when it is none.

    Args:
        refusal: of the whole line. A new one has what the entry holds as its `raw`, so that entries do not nest.
        mode: of a change that does not name one.
    """
    try:
        entry = parse_object(refusal.raw.decode())
    except (InvalidChange, UnicodeDecodeError):
        return None
    if not isinstance(entry, dict) or not _REQUIRED <= entry.keys() <= _ALLOWED:
        return None
    held = refusal
    try:
        held = dataclasses.replace(
            refusal, raw=_raw(entry), header=_text(entry, "header"), cut=entry.get("cut") is True
        )
        return _change(held, mode)
    except InvalidChange as error:
        return dataclasses.replace(held, reason=str(error))


def _change(held: Refusal, mode: Mode) -> MetadataChange:
    if held.cut:
        raise InvalidChange('the text was cut short: put the whole line in, and take "cut" out')
    if not held.raw:
        raise InvalidChange("the entry holds no line: it is about a whole file")
    if held.header is None:
        return parse_line(held.raw, mode)
    return Header.of(_only_row(held.header, "header")).change(_only_row(held.raw, "text"), mode)


def _only_row(text: bytes, name: str) -> Row:
    found = list(rows(iter(text.split(b"\n"))))
    if len(found) != 1:
        raise InvalidChange(f"{name} must hold one row, not {len(found)}")
    return found[0]


def _raw(entry: dict[str, object]) -> bytes:
    if "base64" not in entry:
        return _text(entry, "text") or b""
    try:
        return base64.b64decode(_text(entry, "base64") or b"", validate=True)
    except ValueError:
        raise InvalidChange("base64 is not valid; put the line into text instead") from None


def _text(entry: dict[str, object], name: str) -> bytes | None:
    text = entry.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidChange(f"{name} must be a string, not {json_type(text)}")
    return text.encode(errors="surrogatepass")


def _is_same_file(path: str, name: str) -> bool:
    """Whether both are one regular file, by whatever names."""
    try:
        target = os.stat(path)  # noqa: PTH116 -- one call for a path and a descriptor
        source = os.stat(sys.stdin.fileno() if name == STDIN else name)  # noqa: PTH116 -- likewise
    except (OSError, ValueError, AttributeError):  # not there, not a path, or no standard input
        return False
    return stat.S_ISREG(target.st_mode) and os.path.samestat(target, source)
