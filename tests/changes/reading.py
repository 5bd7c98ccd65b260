"""Helpers of the tests of change files."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from worker.changes import MetadataChange, Mode
from worker.changes.files import ChangeFile, Format, Item, Reading, Refusal

SECRET = "s3cret-value"

# A busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Items = list[Item]


def items_of(file: ChangeFile) -> Items:
    return [item for _, item in file]


def read_file(path: Path, mode: Mode = "merge", **more: Any) -> Items:
    with ChangeFile.open(str(path), Reading(mode, **more)) as file:
        return items_of(file)


def read_bytes(content: bytes, form: Format = "jsonl", mode: Mode = "merge", **more: Any) -> Items:
    with ChangeFile.open("-", Reading(mode, form, **more), stdin=io.BytesIO(content)) as file:
        return items_of(file)


def gz(content: bytes) -> bytes:
    """Compress without the time of day, which would get into the names of tests."""
    return gzip.compress(content, mtime=0)


def refusals(items: Items) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, Refusal)]


def ids(items: Items) -> list[str]:
    return [item.completion_id for item in items if isinstance(item, MetadataChange)]


def csv_of(*rows: Sequence[str]) -> bytes:
    """Join cells that need no quotes."""
    return "".join(",".join(row) + "\n" for row in rows).encode()


def named(value: str | bytes) -> str:
    """A short name for a case; pytest does not find a case again by a name with a backslash."""
    return ascii(value[:40]).replace("\\", "/")
