"""The Lua function library, from the files beside this one; its name contains a hash of the code."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# In this order: each may use the definitions of earlier ones.
_PARTS = (
    *("queue", "history", "batch", "remembered", "put", "dead", "confirmed", "claim", "settle"),
    *("pending", "status", "shared"),
)


@dataclass(frozen=True, slots=True)
class Library:
    """Functions that a server runs.

    Args:
        name: the prefix of each function's name. It is derived from the code, so that workers of two releases, each
            with its own library, can share a server.
        source: for ``FUNCTION LOAD``.
    """

    name: str
    source: str


def named(code: str) -> Library:
    """Return a library with this code."""
    name = f"metasync_{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    return Library(name, f"#!lua name={name}\nlocal LIBRARY = '{name}'\n\n{code}")


@cache
def library() -> Library:
    """Return the queue's library."""
    folder = files(__package__)
    return named("\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS))


def migration_sql() -> str:
    """Return the library's source, for servers whose users may call functions but not load them."""
    return library().source
