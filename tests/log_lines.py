"""Every log line that a test reads from a process must match the log's published schema."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = Path(__file__).parents[1] / "docs" / "schemas" / "log.json"


@cache
def _validators() -> dict[str, jsonschema.Draft202012Validator]:
    schema = json.loads(SCHEMA.read_text())
    return {one["title"]: jsonschema.Draft202012Validator(one | {"$defs": schema["$defs"]}) for one in schema["anyOf"]}


def read_line(line: str | bytes) -> dict[str, Any]:
    """The event of a line of the log, which has to be one of those that are published, with its fields alone."""
    event: dict[str, Any] = json.loads(line)
    assert event["event"] in _validators(), f"not in docs/schemas/log.json: {line!r}"
    wrong = [f"{error.json_path}: {error.message}" for error in _validators()[event["event"]].iter_errors(event)]
    assert not wrong, (wrong, line)
    return event
