"""Takes secrets out of texts that are kept: those of the configuration, and the metadata values that were sent."""

import json
import re
from collections.abc import Iterable
from html import escape
from urllib.parse import quote, quote_plus

from worker.spellings import MASK, spellings

# Services quote a key whole, or with asterisks in its middle.
_KEY_LIKE = re.compile(r"\bsk-[A-Za-z0-9_*.-]{4,}|(?<=Bearer )[^\s\"'`]{4,}")
_WORD = re.compile(r"[^\s\"'`]+")
_ASTERISKS = "***"
_TAG = re.compile(r"<[^<>]*>")  # what is left of an HTML page is its text

# A shorter value is masked only in quotes, since it occurs in half of all words.
_SHORTEST_ANYWHERE = 4
# So many equal characters in a row count as part of a value, wherever it was cut.
_PIECE = 8
_ELLIPSES = ("...", "…")
_QUOTES = ("'{}'", '"{}"', "`{}`", '\\"{}\\"', "\\'{}\\'", "“{}”", "\u2018{}\u2019", "&#39;{}&#39;", "&quot;{}&quot;")


def one_line(text: str) -> str:
    """Return the text on one line, without control characters, its white space collapsed."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def redact(text: str, *, secrets: Iterable[str] = (), values: Iterable[str] = ()) -> str:
    """Replace secrets, values and anything that looks like a key by ``***``. The text should be `one_line` already.

    A secret is found however it is spelled. A value is found plain, JSON-escaped, HTML-escaped, URL-quoted, without its
    HTML tags, or with its white space collapsed. Both are found in small or capital letters. A part is found if eight
    characters are left, or four before an ellipsis. What has under four characters is found only in quotes.
    """
    covered = bytearray(len(text))
    for match in _KEY_LIKE.finditer(text):
        _cover(covered, match.start(), match.end())
    if _ASTERISKS in text:
        for match in _WORD.finditer(text):
            if _ASTERISKS in match[0]:
                _cover(covered, match.start(), match.end())
    small = _small(text)
    secrets = tuple(secrets)
    for secret in secrets:
        if len(secret) >= _SHORTEST_ANYWHERE:
            for match in re.finditer(spellings(_small(secret)), small):
                _cover(covered, match.start(), match.end())
    forms = {_small(form) for hidden in (*secrets, *values) for form in _forms(hidden)}
    for form in forms:
        _cover_form(covered, small, form)
    _cover_pieces(covered, small, forms)
    return _masked(text, covered)


def _forms(value: str) -> set[str]:
    """The ways in which a service may write the value."""
    escaped = json.dumps(value)[1:-1]
    utf8 = json.dumps(value, ensure_ascii=False)[1:-1]
    sendable = value.encode("utf-8", "replace")
    quoted = quote(sendable), quote(sendable, ""), quote_plus(sendable)
    forms = (value, escaped, utf8, escape(value), _TAG.sub(" ", value), *quoted)
    return {one_line(form) for form in forms}


class _SmallLetters(dict[int, int]):
    """For `str.translate`. Each letter alone: a sigma at the end of a word would become another letter."""

    def __missing__(self, code: int) -> int:
        small = chr(code).lower()
        self[code] = ord(small) if len(small) == 1 else code  # the text keeps its length
        return self[code]


_SMALL = _SmallLetters()


def _small(text: str) -> str:
    """The text in small letters, of the same length: services fold addresses, and write %C3 as %c3."""
    return text.lower() if text.isascii() else text.translate(_SMALL)


def _cover_form(covered: bytearray, text: str, form: str) -> None:
    """Cover the whole form; a short one only in quotes."""
    if len(form) < _SHORTEST_ANYWHERE:
        for quotes in _QUOTES:
            _cover_all(covered, text, quotes.format(form), quotes.index("{"), len(form))
        return
    _cover_all(covered, text, form, 0, len(form))
    for length in range(_SHORTEST_ANYWHERE, min(_PIECE, len(form))):
        for ellipsis_ in _ELLIPSES:
            _cover_all(covered, text, form[:length] + ellipsis_, 0, length)


def _cover_all(covered: bytearray, text: str, sought: str, offset: int, length: int) -> None:
    start = text.find(sought)
    while start >= 0:
        _cover(covered, start + offset, start + offset + length)
        start = text.find(sought, start + 1)


def _cover_pieces(covered: bytearray, text: str, forms: Iterable[str]) -> None:
    """Cover each run of so many characters that is also in one of the forms."""
    pieces = {form[start : start + _PIECE] for form in forms for start in range(len(form) - _PIECE + 1)}
    if not pieces:
        return
    for start in range(len(text) - _PIECE + 1):
        if text[start : start + _PIECE] in pieces:
            _cover(covered, start, start + _PIECE)


def _cover(covered: bytearray, start: int, end: int) -> None:
    covered[start:end] = b"\1" * (end - start)


def _masked(text: str, covered: bytearray) -> str:
    """The text with one mask for each covered run."""
    kept, masked = [], False
    for character, is_covered in zip(text, covered, strict=True):
        if not is_covered:
            kept.append(character)
        elif not masked:
            kept.append(MASK)
        masked = bool(is_covered)
    return "".join(kept)
