"""How a text may spell a secret: plain, percent-encoded or escaped as in JSON, Python or HTML; and that within JSON."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MASK: Final = "***"
SHORTEST: Final = 8  # a shorter secret is a placeholder, which may be part of common words

# A piece that every writer leaves as it is; backslashes, which each level of escaping doubles; any other character.
_PIECES = re.compile(r"(?P<plain>[A-Za-z0-9._~-]+)|(?P<slashes>\\+)|.", re.DOTALL)
_NAMED = {'"': "quot", "'": "apos", "&": "amp", "<": "lt", ">": "gt"}
_BEYOND_BMP = 0x10000


@lru_cache(maxsize=256)
def spellings(secret: str) -> str:
    """Return a pattern for all spellings of the secret, which may be compiled for a text or for its UTF-8."""
    return "".join(map(_spellings, _PIECES.finditer(secret)))


def plain_part(secret: str) -> str:
    """Return the longest part that every spelling contains, for a quick look at whether a text may hold one."""
    return max((match["plain"] or "" for match in _PIECES.finditer(secret)), key=len, default="")


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return the text with each secret of eight characters and more masked, however it is spelled."""
    for secret in secrets:
        if len(secret) >= SHORTEST:
            text = re.sub(spellings(secret), MASK, text)
    return text


def _spellings(piece: re.Match[str]) -> str:
    if piece["plain"]:
        return re.escape(piece[0])
    count = len(piece[0])
    if piece["slashes"]:
        doubled = "|".join(rf"\\{{{count << level}}}" for level in (3, 2, 1, 0))
        return rf"(?:{doubled}|(?:{_percent(92)}|{_html(92)}){{{count}}})"
    code = ord(piece[0])
    utf8 = piece[0].encode("utf-8", "surrogatepass")
    escapes = [_hex("u", unit, 4) for unit in _utf16(code)], [_hex("x", byte, 2) for byte in utf8]
    forms = [r"\\{1,15}".join(units) for units in escapes]
    forms += [re.escape(piece[0]), _hex("U", code, 8), _hex("x", code, 2)]
    others = ["".join(map(_percent, utf8)), _html(code), *([r"\+"] if piece[0] == " " else [])]
    # The longest first: & and % begin their own escapes.
    return rf"(?:{'|'.join(others)}|\\{{0,15}}(?:{'|'.join(forms)}))"


def _utf16(code: int) -> list[int]:
    above = code - _BEYOND_BMP
    return [code] if above < 0 else [0xD800 + (above >> 10), 0xDC00 + (above & 0x3FF)]


def _hex(letter: str, number: int, digits: int) -> str:
    return f"{letter}{_either_case(f'{number:0{digits}x}')}"


def _percent(byte: int) -> str:
    return f"%(?:25){{0,2}}{_either_case(f'{byte:02x}')}"


def _html(code: int) -> str:
    named = _NAMED.get(chr(code))
    numbered = f"#0*{code};|#[xX]0*{_either_case(f'{code:x}')};"
    return f"&(?:amp;){{0,2}}(?:{numbered}{f'|{named};' if named else ''})"


def _either_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
