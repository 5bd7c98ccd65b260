"""The OpenAPI document, generated from the types and limits in the code."""

from functools import cache
from typing import Any

import msgspec

from worker.changes import MODES
from worker.changes.change import LATEST_AS_OF, MAX_CHANGE_ID_LENGTH, MAX_KEY_LENGTH, MAX_PAIRS, MAX_VALUE_LENGTH
from worker.queue.batch import BATCH_NAME
from worker.web.bodies import MAX_BYTES
from worker.web.door import JSON
from worker.web.intake import FORMATS, MAX_CHANGES, MAX_KEY_CHARACTERS, PATH, Account, Problem

_UNSENDABLE = "no NUL and no half of a surrogate pair"
_COUNTED = {
    "200": "The changes are durable in the queue; refused ones are listed.",
    "409": "Nothing was stored: a different change is pending under the change_id of every change.",
    "422": "Nothing was stored: all changes are refused, and listed.",
}
_PROBLEMS = {
    "400": "The body, the Idempotency-Key or the query is malformed.",
    "401": "The token is missing or wrong.",
    "408": "The body did not arrive in time.",
    "413": f"The body is larger than {MAX_BYTES:,} bytes, unpacked, or holds more than {MAX_CHANGES:,} changes.",
    "415": "The Content-Type or the Content-Encoding is not supported.",
    "500": "The queue cannot be used: the process's log says why.",
    "503": "The store is unavailable, or too much is pending or under way: retry after Retry-After seconds.",
}


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(_document())


def _document() -> dict[str, Any]:
    _, types = msgspec.json.schema_components((Account, Problem), ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "metasync",
            "version": "1",
            "summary": "Stores changes to the metadata of stored chat completions in a durable queue.",
        },
        "security": [],
        "paths": {
            PATH: {"post": _post()},
            "/livez": {"get": _get("tick_age_seconds")},
            "/readyz": {"get": _get("ready")},
        },
        "components": {
            "securitySchemes": {"intake": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Change": _change(), **types},
        },
    }


def _post() -> dict[str, Any]:
    change = {"$ref": "#/components/schemas/Change"}
    changes = {"oneOf": [change, {"type": "array", "items": change}]}
    lines = {"description": "One change per line, as a JSON object."}
    return {
        "operationId": "enqueue",
        "summary": "Store changes; answered once they are durable.",
        "description": "Valid changes are stored in order, in one transaction; invalid ones are listed. gzip works.",
        "security": [{"intake": []}],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "With the line number, it is the change_id of a change that has none.",
                "schema": {"type": "string", "pattern": f"^[!#-~]{{1,{MAX_KEY_CHARACTERS}}}$"},
            },
            {
                "name": "batch",
                "in": "query",
                "description": "The name of the changes' batch; it may exist already.",
                "schema": {"type": "string", "pattern": f"^{BATCH_NAME.pattern}$"},
            },
            {
                "name": "urgent",
                "in": "query",
                "description": "Whether their completions are updated before all others.",
                "schema": {"type": "boolean", "default": False},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {name: {"schema": changes if form == "json" else lines} for name, form in FORMATS.items()},
        },
        "responses": {
            **{status: _answer(text, "Account") for status, text in _COUNTED.items()},
            **{status: _answer(text, "Problem") for status, text in _PROBLEMS.items()},
            "429": {
                "description": "Too many requests without a token.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
        },
    }


def _answer(text: str, schema: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": text,
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
    if text == _PROBLEMS["503"]:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return answer


def _get(field: str) -> dict[str, Any]:
    schema = {"type": "object", "required": [field]}
    answers = {status: {"description": "", "content": {JSON: {"schema": schema}}} for status in ("200", "503")}
    answers["200"]["description"] = "All is well."
    answers["503"]["description"] = "Something is wrong; the body says what."
    return {"summary": f"Whether all is well: {field}.", "responses": answers}


def _change() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["completion_id", "metadata"],
        "additionalProperties": False,
        "properties": {
            "completion_id": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,255}$",
                "description": "The stored completion; no word for a missing value, such as nan or null.",
            },
            "metadata": {
                "type": "object",
                "description": f"Up to {MAX_PAIRS} pairs to set, {_UNSENDABLE}; in mode merge, null removes a key.",
                "propertyNames": {"maxLength": MAX_KEY_LENGTH},
                "additionalProperties": {"type": ["string", "null"], "maxLength": MAX_VALUE_LENGTH},
            },
            "mode": {"enum": list(MODES), "description": "Without it, what METASYNC_MODE says."},
            "change_id": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": MAX_CHANGE_ID_LENGTH,
                "description": "Another with it is not stored while one is pending, or soon after it was applied.",
            },
            "as_of": {
                "oneOf": [
                    {"type": "string", "format": "date-time"},
                    {"type": "number", "minimum": 0, "exclusiveMaximum": LATEST_AS_OF},
                    {"type": "null"},
                ],
                "description": "When this was true; a newer applied change wins. A number is Unix time in seconds.",
            },
        },
    }
