"""What may be written to a terminal: foreign text without escapes; colours and moving lines only where they work."""

import os
import re
import sys
from typing import TextIO

# Invisible, yet printable by Python's reckoning: Unicode's Default_Ignorable_Code_Point.
_IGNORABLE = "\u034f\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff"
_INVISIBLE = re.compile(f"[{_IGNORABLE}]")
_USUAL_COLUMNS = 80
_SHOWN_LENGTH = 72  # a line's worth


def columns() -> int:
    """How wide the terminal behind standard error is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError, AttributeError):
        return _USUAL_COLUMNS


def printable(text: str) -> str:
    """The text on one line, with every character that a person cannot see written as an escape.

    Those are control characters (C0 and C1, so terminal escapes too), marks that turn the direction of what follows,
    zero-width characters, line breaks and halves of surrogate pairs.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(character if _is_visible(character) else _escape(character) for character in text)


def printable_lines(text: str) -> str:
    """The same for a text whose line breaks are ours."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """The JSON text with what `printable` escapes escaped as JSON does; line breaks are the layout's."""
    if text.isascii() and "\x7f" not in text:  # JSON has escaped the others
        return text
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(
        character if character == "\n" or _is_visible(character) else _json_escape(character) for character in text
    )


def shown(text: object) -> str:
    """Put the text in quotes, safe on any terminal and short."""
    quoted = ascii(text)
    return quoted if len(quoted) <= _SHOWN_LENGTH else f"{quoted[: _SHOWN_LENGTH - 4]}…{quoted[-1]}"


def _is_visible(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def is_terminal(stream: TextIO) -> bool:
    """Whether a line may be moved over: a terminal, and one that can."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colors(stream: TextIO) -> bool:
    """Whether the reader can see colours and has not asked for none (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")
