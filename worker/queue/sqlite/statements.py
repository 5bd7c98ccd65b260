"""The SQL, which lies in files beside this one: named statements, and the numbered migrations."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


@cache
def statements(name: str) -> Mapping[str, str]:
    """Give the statements of ``NAME.sql``, each by the name that a line ``-- name: NAME`` above it says."""
    _, *parts = _NAME.split(_text(f"{name}.sql"))
    return MappingProxyType({title: sql.strip() for title, sql in zip(parts[::2], parts[1::2], strict=True)})


@cache
def migrations() -> tuple[tuple[int, str], ...]:
    """Give every migration as (schema version that it leads to, SQL), oldest first."""
    names = sorted(entry.name for entry in files(__package__).iterdir())
    return tuple((int(match[1]), _text(name)) for name in names if (match := _MIGRATION.fullmatch(name)))


def migration_sql() -> str:
    """Give the statements that make a queue of an empty file, as one transaction."""
    return "\n".join(["BEGIN IMMEDIATE;\n", *(sql for _, sql in migrations()), "COMMIT;\n"])


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
