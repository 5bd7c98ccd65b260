"""Convert text to a form that every store accepts."""

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
    """Remove from foreign text, such as an error's, what a store may refuse: NUL and halves of surrogate pairs."""
    if text is None:
        return None
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def hash_of(text: str) -> int:
    """Return a 63-bit hash; among five million texts, two share one with a probability of one in a million."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def size_bytes(text: str) -> int:
    """Return the length of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def json_text(value: object) -> str:
    """Encode as JSON for the store."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: object) -> str:
    """Convert a subclass of str, which msgspec refuses, to a plain string."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored")
