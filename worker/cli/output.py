"""Where the command writes: data to standard output, everything else to standard error."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from config import sink
from worker.terminal import printable, printable_json, printable_lines


class OutputLost(Exception):
    """Standard output takes nothing more, since its disk is full, say. What was asked for may have been done."""


def say(text: str) -> None:
    """Lines of data, for people: what could move the terminal's cursor, or hide, is escaped."""
    say_raw(printable_lines(text))


def say_raw(text: str, *, end: str = "\n") -> None:
    """Lines of our own making that another program reads as they are."""
    if sys.stdout is None:  # closed from the start
        raise BrokenPipeError
    sink.flush()  # what was told before comes before it: a progress line that is to be wiped away, say
    with _explained():
        sys.stdout.write(text + end)


def flush() -> None:
    """Have all that was said be written.

    Raises:
        BrokenPipeError: whoever read it has seen enough.
        OutputLost: it cannot be.
    """
    if sys.stdout is not None:
        with _explained():
            sys.stdout.flush()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(
            f"standard output cannot be written ({error.strerror}); what was asked for may have been done"
        ) from None


def say_json(value: Any) -> None:  # noqa: ANN401 -- whatever has a JSON form
    """One JSON document, indented for people."""
    say_raw(_json_text(value))


def report(text: str) -> None:
    """What was done, as data; where nobody takes it any more, it is said on standard error: it must not be lost."""
    _report(printable_lines(text))


def report_json(value: Any) -> None:  # noqa: ANN401 -- whatever has a JSON form
    """The same as one JSON document."""
    _report(_json_text(value))


def _report(text: str) -> None:
    try:
        say_raw(text)
        flush()
    except (OutputLost, BrokenPipeError, ValueError):  # full, or closed
        silence_stdout()
        tell(text)


def _json_text(value: Any) -> str:  # noqa: ANN401 -- likewise
    import msgspec  # noqa: PLC0415 -- not for --help

    return printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def silence_stdout() -> None:
    """What is left in the buffer can go nowhere, and would be tried again when the process ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """A line for the person at the terminal; what could move its cursor, or hide, is escaped."""
    sink.put(f"{printable_lines(text)}\n".encode(errors="backslashreplace"))


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """The rows as aligned columns, each on one line, whatever its cells hold.

    Args:
        right: numbers of the columns that are aligned to the right, such as figures.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def age_text(seconds: float) -> str:
    """A duration as people say it: the two largest units that it has."""
    parts = []
    rest = round(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def time_text(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
