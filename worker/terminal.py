"""Writing to a terminal safely: foreign text without control codes, colours only where they work."""

import os
import re
import sys
from typing import TextIO

# Invisible characters that str.isprintable() accepts: Unicode's Default_Ignorable_Code_Point.
_IGNORABLE = "\u034f\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff"
_INVISIBLE = re.compile(f"[{_IGNORABLE}]")
_USUAL_COLUMNS = 80
_SHOWN_LENGTH = 72  # fits on one line


def columns() -> int:
    """Return the width of the terminal behind standard error, in columns."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError, AttributeError):
        return _USUAL_COLUMNS


def printable(text: str) -> str:
    """Return the text on one line, with every invisible character as an escape.

    Invisible are control characters (C0 and C1, so terminal escapes too), marks that change the text's direction,
    zero-width characters, line breaks and halves of surrogate pairs.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(character if _is_visible(character) else _escape(character) for character in text)


def printable_lines(text: str) -> str:
    """Do the same, but keep line breaks: they are the product's own."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Escape what `printable` escapes, in JSON's form; line breaks belong to the layout and stay."""
    if text.isascii() and "\x7f" not in text:  # JSON has already escaped all others
        return text
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(
        character if character == "\n" or _is_visible(character) else _json_escape(character) for character in text
    )


def shown(text: object) -> str:
    """Quote the text, shortened and safe for any terminal."""
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
    """Whether the stream is a terminal that can overwrite a line."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colors(stream: TextIO) -> bool:
    """Whether the terminal shows colours and the user has not turned them off (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")
