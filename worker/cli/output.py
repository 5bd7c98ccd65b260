"""Where the command writes: data to standard output, everything else to standard error."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec


def say(text: str) -> None:
    """One line of data."""
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:  # noqa: ANN401 -- whatever has a JSON form
    """One JSON document, indented for people."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def tell(text: str) -> None:
    """One line for the person at the terminal."""
    sys.stderr.write(text + "\n")


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """The rows as aligned columns.

    Args:
        right: numbers of the columns that are aligned to the right, such as figures.
    """
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
