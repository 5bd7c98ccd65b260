"""Read SQL files of a backend: named statements and numbered migrations."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


@cache
def read_statements(package: str, name: str) -> Mapping[str, str]:
    """Return the statements of a package's ``NAME.sql``, by the name in the line ``-- name: NAME`` above each.

    A statement's name in braces, within another of the file, stands for its text, without the semicolon. Other words in
    braces are left to the caller.
    """
    _, *parts = _NAME.split(_text(package, f"{name}.sql"))
    written = {title: sql.strip() for title, sql in zip(parts[::2], parts[1::2], strict=True)}
    return MappingProxyType(
        {
            title: _PART.sub(lambda part: written.get(part[1], part[0]).removesuffix(";"), sql)
            for title, sql in written.items()
        }
    )


@cache
def read_migrations(package: str) -> tuple[tuple[int, str], ...]:
    """Return a package's migrations as (resulting schema version, SQL), oldest first."""
    names = sorted(entry.name for entry in files(package).iterdir())
    return tuple((int(match[1]), _text(package, name)) for name in names if (match := _MIGRATION.fullmatch(name)))


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
