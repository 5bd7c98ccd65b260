"""The command's output: data on standard output, everything else on standard error."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from config import sink
from worker.terminal import printable, printable_json, printable_lines


class OutputLost(Exception):
    """Standard output cannot be written, such as on a full disk. The command may have done its work."""


def say(text: str) -> None:
    """Print data for people; control and invisible characters are escaped."""
    say_raw(printable_lines(text))


def counted(number: int, noun: str) -> str:
    """Return such as ``1 line`` or ``2,000 lines``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say_raw(text: str, *, end: str = "\n") -> None:
    """Print our own lines for programs, without escaping."""
    if sys.stdout is None:  # standard output was closed at the start
        raise BrokenPipeError
    sink.flush()  # earlier messages first, such as the removal of a progress line
    with _explained():
        sys.stdout.write(text + end)


def flush() -> None:
    """Write all buffered output.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        OutputLost: it cannot be written.
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
            f"standard output cannot be written ({error.strerror}); the command may have done its work"
        ) from None


@contextmanager
def needing_a_reader(name: str = "standard output") -> Iterator[None]:
    """For a command whose exit code judges all that it prints: it does not end with 0 if its reader has left.

    Raises:
        OutputLost: the reader closed the pipe.
    """
    try:
        yield
    except BrokenPipeError:
        raise OutputLost(f"{name} was closed before all was written") from None


def say_json(value: Any) -> None:  # noqa: ANN401 -- any value with a JSON form
    """Print one JSON document, indented."""
    say_raw(_json_text(value))


def report(text: str) -> None:
    """Print the result as data; if standard output fails, on standard error, so that it is not lost."""
    _report(printable_lines(text))


def report_json(value: Any) -> None:  # noqa: ANN401 -- any value with a JSON form
    """Print the result as one JSON document; see `report`."""
    _report(_json_text(value))


def _report(text: str) -> None:
    try:
        say_raw(text)
        flush()
    except (OutputLost, BrokenPipeError, ValueError):  # disk full, or closed
        silence_stdout()
        tell(text)


def _json_text(value: Any) -> str:  # noqa: ANN401 -- as above
    import msgspec  # noqa: PLC0415 -- not for --help

    return printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def silence_stdout() -> None:
    """Drop buffered output that cannot be written, or Python would try again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """Print a line on standard error; control and invisible characters are escaped."""
    sink.put(f"{printable_lines(text)}\n".encode(errors="backslashreplace"))


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Format rows as aligned columns, one line each.

    Args:
        right: indices of right-aligned columns.
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
    """Format a duration in its two largest units."""
    parts = []
    rest = round(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def time_text(unix_seconds: float, timespec: str = "milliseconds") -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def as_of_text(unix_seconds: float | None) -> str | None:
    """Format an `as_of` to the microsecond, as it is compared with others, here or where it is enqueued again."""
    if unix_seconds is None:
        return None
    exact = time_text(unix_seconds, "microseconds")
    return time_text(unix_seconds) if exact.endswith("000Z") else exact
