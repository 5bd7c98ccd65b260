"""Text in a form that every store takes."""

from hashlib import blake2b
from typing import overload

import msgspec


@overload
def storable(text: str) -> str: ...
@overload
def storable(text: None) -> None: ...
@overload
def storable(text: str | None) -> str | None: ...
def storable(text: str | None) -> str | None:
    """Give text from outside, such as an error's, in a form that every store takes: no NUL, no half surrogate pair."""
    if text is None:
        return None
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def hash_of(text: str) -> int:
    """Give a number of 63 bits that stands for the text: two of five million share one once in a million times."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def size_bytes(text: str) -> int:
    """Give the length of the text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def json_text(value: object) -> str:
    """Encode for the store."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: object) -> str:
    """Take a string of a subclass, which msgspec does not know, for the string that it is."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored")
