"""Write refused lines to a file, and read them again once they are repaired.

Each line of such a file is one JSON object. ``file``, ``line`` and ``reason`` say what was refused and why; ``text``
is the line as it was read. For a CSV row, ``header`` is its header line and ``delimiter`` its delimiter if not a comma;
``record`` is a value's number in a JSON file. A line that is not UTF-8 has ``base64`` in place of ``text``, and
``"cut": true`` means that only its start was kept. Once ``text`` is repaired, the file can be enqueued as it is.
"""

import base64
import dataclasses
import json
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from worker.changes.change import InvalidChange, MetadataChange, json_type
from worker.changes.jsonl import line_parser, parse_object
from worker.changes.reading import Reading
from worker.changes.refusal import Refusal
from worker.changes.rows import Header, Row, rows
from worker.changes.source import STDIN

_MODE = 0o600
_REQUIRED = frozenset({"file", "line", "reason"})
_ALLOWED = _REQUIRED | {"record", "header", "delimiter", "text", "base64", "cut"}


class UnwritableRejects(Exception):
    """The file for refused lines cannot be written; the message is one sentence that names it."""


class RejectsFile:
    """A file of refused lines; every `write` leaves it complete.

    It is created at once, so that an unwritable path fails early. The first refused line replaces the old content.
    If no line is refused, `close` removes the file, even one that an older run wrote.

    Args:
        path: where to write.
        inputs: the change files to read, as the user named them; none may be this file.
        append: keep the old content.

    Raises:
        UnwritableRejects: the file cannot be written; `write` raises it, too.
    """

    def __init__(self, path: str, *, inputs: Iterable[str] = (), append: bool = False) -> None:
        self.path = path
        self.written = 0
        self._append = append
        if path == STDIN:
            raise UnwritableRejects("--rejects takes the name of a file, not -; for standard output say /dev/stdout")
        if path.lower().endswith(".gz"):  # `enqueue` would try to unpack it
            raise UnwritableRejects(f"{path}: refused lines are not compressed, so leave .gz out of the name")
        if any(_is_same_file(path, name) for name in inputs):
            raise UnwritableRejects(f"{path}: refused lines cannot be written over the file that they are read from")
        self._is_new = not os.path.lexists(path)
        try:
            # A file name that is not UTF-8 becomes JSON escapes.
            self._file = open(  # noqa: SIM115 -- close() closes it
                path, "a", encoding="utf-8", errors="backslashreplace", newline="\n", buffering=1, opener=_private
            )
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from None

    def write(self, refusal: Refusal) -> None:
        try:
            if not self.written and not self._append and self._is_regular():
                self._file.truncate(0)
            self._file.write(json.dumps(_entry(refusal), ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._unwritable(error) from None
        self.written += 1

    def close(self, *, done: bool = True) -> None:
        """Close the file, and remove it if no line was refused.

        Args:
            done: whether all input was read; if not, what an older run wrote stays.
        """
        is_unused = not self.written and self._is_regular() and (self._is_new or (done and not self._append))
        try:
            self._file.close()
            if is_unused and not os.path.islink(self.path):  # noqa: PTH114 -- the path is as it was given
                os.unlink(self.path)  # noqa: PTH108 -- likewise
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(done=kind is None)

    def _is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def _unwritable(self, error: OSError | ValueError) -> UnwritableRejects:
        reason = error.strerror if isinstance(error, OSError) else error
        return UnwritableRejects(f"{self.path}: refused lines cannot be written there: {reason}")


def _entry(refusal: Refusal) -> dict[str, object]:
    entry: dict[str, object] = {"file": refusal.source, "line": refusal.line, "reason": refusal.reason}
    if refusal.record is not None:
        entry["record"] = refusal.record
    if refusal.header is not None:
        entry["header"] = refusal.header.decode()
        if refusal.delimiter != ",":
            entry["delimiter"] = refusal.delimiter
    if refusal.raw:
        try:
            entry["text"] = refusal.raw.decode()
        except UnicodeDecodeError:
            entry["base64"] = base64.b64encode(refusal.raw).decode()
    if refusal.cut:
        entry["cut"] = True
    return entry


def retake(refusal: Refusal, reading: Reading) -> MetadataChange | Refusal | None:
    """Read a refused line as an entry of a rejects file; return the refusal itself if it is no entry.

    Args:
        refusal: of the whole line. A new refusal has the entry's own text as `raw`, so that entries do not nest.

    Returns:
        None for a blank row.
    """
    try:
        entry = parse_object(refusal.raw.decode())
    except (InvalidChange, UnicodeDecodeError):
        return refusal
    if not isinstance(entry, dict) or not _REQUIRED <= entry.keys() <= _ALLOWED:
        return refusal
    held = refusal
    try:
        delimiter = (_text(entry, "delimiter") or b",").decode()
        held = dataclasses.replace(
            held,
            raw=_raw(entry),
            header=_text(entry, "header"),
            delimiter=delimiter,
            cut=entry.get("cut") is True,
        )
        return _change(held, reading)
    except InvalidChange as error:
        return dataclasses.replace(held, reason=str(error), hint=error.hint)


def _change(held: Refusal, reading: Reading) -> MetadataChange | None:
    if held.cut:
        raise InvalidChange('the text was cut short: put the whole line in, and take "cut" out')
    if not held.raw:
        raise InvalidChange("the entry holds no line: it is about a whole file")
    if held.header is None:
        return line_parser(reading)(held.raw)
    header = Header.of(_only_row(held.header, held.delimiter, "header"), reading)
    return header.change(_only_row(held.raw, held.delimiter, "text"))


def _only_row(text: bytes, delimiter: str, name: str) -> Row:
    found = list(rows(iter(text.split(b"\n")), delimiter))
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


def _private(path: str, flags: int) -> int:
    """Open the path; make a new or emptied file readable by its owner only, independent of the umask."""
    descriptor = os.open(path, flags, _MODE)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with suppress(OSError):  # another user owns the file and lets us write to it
            os.fchmod(descriptor, _MODE)
    return descriptor


def _is_same_file(path: str, name: str) -> bool:
    """Whether both paths name the same regular file."""
    try:
        target = os.stat(path)  # noqa: PTH116 -- takes a path or a descriptor
        source = os.stat(sys.stdin.fileno() if name == STDIN else name)  # noqa: PTH116 -- likewise
    except (OSError, ValueError, AttributeError):  # missing, no valid path, or no standard input
        return False
    return stat.S_ISREG(target.st_mode) and os.path.samestat(target, source)
