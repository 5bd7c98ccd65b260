"""Reads the body of a failure: an error for programs, a text for people."""

import re
from collections.abc import Iterable
from html import unescape
from typing import Final, NamedTuple

from worker.api.models import ErrorEnvelope, ServiceError
from worker.api.parsing import load_json, parse
from worker.api.redact import one_line, redact

LONGEST_ERROR: Final = 500
# Secrets are looked for in the first part of a text only. The rest is not kept.
_LONGEST_READ: Final = 2_000
_LONGEST_RAW: Final = 65_536

_INVISIBLE_HTML = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")


class Said(NamedTuple):
    """The content of a failure's body.

    Args:
        envelope: the body has the service's error format, ``{"error": {...}}``.
        is_json: the body is JSON of any kind.
    """

    error: ServiceError
    envelope: bool
    is_json: bool


def read_error(body: bytes) -> Said:
    """Read the error from a failure's body, in the service's format or in that of a gateway before it."""
    envelope = parse(body, ErrorEnvelope)
    if envelope is None:
        return Said(ServiceError(), envelope=False, is_json=_is_json(body))
    match envelope.error:
        case ServiceError() as error:
            says_something = any((error.message, error.type, error.code))
            return Said(error, envelope=says_something, is_json=True)
        case str() as message:
            said = ServiceError(message=message)
        case None:
            said = ServiceError(message=envelope.message or envelope.detail or envelope.title)
    return Said(said, envelope=False, is_json=True)


def explain_failure(error: ServiceError, body: bytes) -> str:
    """Return the text of a failure's body for people; empty if it has none.

    Only the known fields of JSON are shown. Nothing of malformed JSON is shown, since it may hold a conversation.
    """
    name = error.code or error.type
    where = f" ({error.param})" if error.param else ""
    told = ": ".join(str(part) for part in (name, error.message) if part)
    if told:
        return f"{told}{where}"
    start = _start(body)
    if start.startswith(("{", "[", '"')):
        return ""
    return unescape(_TAG.sub(" ", _INVISIBLE_HTML.sub(" ", start))) if start.startswith("<") else start


def explain_nonsense(body: bytes) -> str:
    """Say why a body is not the expected JSON object, without showing any of it."""
    start = _start(body)
    if not start:
        return "is empty"
    if start.startswith("<"):
        return "is HTML, not JSON"
    try:
        found = load_json(body)
    except ValueError:
        return "is not valid JSON"
    return "is an array, not an object" if isinstance(found, list) else "is not a JSON object"


def readable(text: str, *, secrets: Iterable[str] = (), sent: Iterable[str] = ()) -> str:
    """Make a text safe to keep: one line of at most 500 characters, without control characters and secrets.

    Args:
        secrets: of the configuration, above all the API key.
        sent: metadata values, which are masked, too.
    """
    whole = one_line(text[:_LONGEST_RAW])
    kept = redact(whole[:_LONGEST_READ], secrets=secrets, values=sent)
    if len(whole) > _LONGEST_READ:  # the cut may have left too little of a value to find it
        kept = kept[:-8]
    return kept if len(kept) <= LONGEST_ERROR else f"{kept[: LONGEST_ERROR - 1]}…"


def _is_json(body: bytes) -> bool:
    try:
        load_json(body)
    except ValueError:
        return False
    return True


def _start(body: bytes) -> str:
    return body[:_LONGEST_RAW].decode("utf-8-sig", "replace").lstrip()
