"""Recognise a change file's format by its first bytes; for an unsupported one, say what it is and what to do."""

import re

from worker.changes.change import folded
from worker.changes.jsonl import ID_NAMES
from worker.changes.lines import BYTE_ORDER_MARK
from worker.changes.reading import Format, Reading
from worker.changes.records import spans_lines

# The first bytes of files that are not text.
_BINARY = {
    b"PK\x03\x04": "an Excel workbook, or another zip archive: save it as CSV (UTF-8), or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV (UTF-8)",
    b"PAR1": "a Parquet file: write it as JSON lines or CSV",
    b"SQLite format 3\0": "a SQLite database, not a file of changes",
    b"BZh": "bzip2 data, and of those only gzip is read: `bzip2 -dc FILE | metasync enqueue -`",
    b"\xfd7zXZ\0": "xz data, and of those only gzip is read: `xz -dc FILE | metasync enqueue -`",
    b"\x28\xb5\x2f\xfd": "zstd data, and of those only gzip is read: `zstd -dc FILE | metasync enqueue -`",
}
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_WIDE = re.compile(rb"(?:[\t\n\r -~]\0){2}|(?:\0[\t\n\r -~]){2}")
_SEPARATOR = re.compile(rb"sep=([^\r\n])\s*", re.IGNORECASE)
_DELIMITERS = {";": "';'", "\t": "tab", "|": "'|'"}


def form_of(start: bytes, form: Format, reading: Reading, delimiter: str) -> Format:
    """Return the actual format of data with this start, given the expected one.

    Args:
        start: the first line that is not blank, at least, unless it is long.
        delimiter: the expected delimiter of CSV.

    Raises:
        ValueError: the format is unsupported, or not the expected one; the message names it and says what to do.
    """
    _check_text(start)
    start = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    line = start.partition(b"\n")[0]
    if b"\n" not in start and b"\r" in line.rstrip():
        raise ValueError("its lines end with carriage returns alone: `tr '\\r' '\\n' < FILE` makes lines of them")
    if form == "csv":
        _check_rows(line, reading, delimiter)
        return form
    if not line.startswith((b"{", b"[")) and _delimiter_of(line, reading):
        raise ValueError("this looks like CSV, not JSON: say --format csv")
    return "json" if form == "jsonl" and spans_lines(start) else form


def _check_text(start: bytes) -> None:
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise ValueError(f"this is {what}")
    if start.startswith(_BYTE_ORDER_MARKS) or _WIDE.match(start):
        raise ValueError("this is UTF-16 text: save it as UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`")


def _check_rows(line: bytes, reading: Reading, delimiter: str) -> None:
    if line.startswith((b"{", b"[")):
        raise ValueError("this looks like JSON, not CSV: say --format jsonl")
    if separator := _SEPARATOR.fullmatch(line):
        found = separator[1].decode(errors="replace")
        if found != delimiter:
            raise ValueError(f"the first line says that cells are separated by {_name(found)}: {_flag(found)}")
    found = _delimiter_of(line, reading)
    if found not in ("", delimiter) and delimiter.encode() not in line:
        raise ValueError(f"the cells are separated by {_name(found)}: {_flag(found)}")


def separator_line(line: bytes) -> bool:
    """Whether this is Excel's line that names the delimiter, before the header."""
    return _SEPARATOR.fullmatch(line) is not None


def _delimiter_of(line: bytes, reading: Reading) -> str:
    """Return the delimiter of this header row; an empty string if it is no header row."""
    text = line.decode(errors="replace")
    wanted = {*ID_NAMES, folded(reading.id_column)}
    for delimiter in (",", *_DELIMITERS):
        cells = text.split(delimiter)
        if len(cells) > 1 and any(folded(cell.strip().strip("'\"")) in wanted for cell in cells):
            return delimiter
    return ""


def _name(delimiter: str) -> str:
    return _DELIMITERS.get(delimiter, f"'{delimiter}'")


def _flag(delimiter: str) -> str:
    return f"say --delimiter {'tab' if delimiter == chr(9) else repr(delimiter)}"
