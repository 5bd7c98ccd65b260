"""Judges an answer: what it means for the change that was sent. Pure: no clock, no socket."""

import re
from collections.abc import Collection, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec

from worker.api.absence import missing, other_than
from worker.api.explain import Said, explain_failure, explain_nonsense, read_error, readable
from worker.api.headers import read_delay_seconds, read_rate_limit, read_request_id, read_should_retry
from worker.api.models import ServiceError
from worker.api.parsing import STRICT_ERRORS, fit_metadata, load_json
from worker.api.table import ABSENT, classify, is_certain, status_of, wants_slower
from worker.api.verdict import OK, About, Halt, Kind, Verdict

_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT})
_LONGEST_NAME = 100
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}")


class Shown(msgspec.Struct, frozen=True):
    """The metadata that a success shows.

    Args:
        metadata: None if the answer does not show it; ``{}`` if it is empty or null.
        whole: whether `metadata` is all that the answer shows. Values that are not strings are left out.
        unread: the answer has no body, or one that is too large to read.
    """

    metadata: dict[str, str] | None = None
    whole: bool = True
    unread: bool = False


class _Finding(msgspec.Struct, frozen=True):
    """What status and body mean; see `Verdict`."""

    kind: Kind = OK
    halt: Halt | None = None
    error: str | None = None
    foreign: bool = False
    said: Said | None = None
    about: About | None = None
    shown: Shown = Shown()


class _Essence(msgspec.Struct):
    """The fields of a success that the worker needs. The decoder skips the rest of the body."""

    id: str | None = None
    metadata: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None
    data: msgspec.Raw = msgspec.Raw()


_essence_decoder = msgspec.json.Decoder(_Essence)
_NOTHING_SAID = Said(ServiceError(), envelope=False, is_json=False)
_UNREAD = _Finding(shown=Shown(unread=True))


def verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    asked: str | None = None,
    secrets: Collection[str] = (),
    sent: Collection[str] = (),
    now: float | None = None,
) -> Verdict:
    """Judge an answer.

    Args:
        headers: names in lower case, or a mapping that ignores case.
        asked: the id of the completion, which a success has to show; None for a list, whose success is a page.
        secrets: texts that must not be in the verdict.
        sent: metadata values, which must not be in it either.
        now: Unix time in seconds, for a ``retry-after`` that is a date.
    """
    return judge(status, headers, body, asked=asked, secrets=secrets, sent=sent, now=now)[0]


def judge(
    status: int,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    asked: str | None = None,
    secrets: Collection[str] = (),
    sent: Collection[str] = (),
    now: float | None = None,
) -> tuple[Verdict, Shown]:
    """Judge an answer as `verdict` does; return the verdict, and what a success shows.

    Args:
        body: None if it was too large to read.
    """
    is_success = 200 <= status < 300  # noqa: PLR2004 -- the class of statuses that says success
    found = (
        _read_success(status, headers, body, asked)
        if is_success
        else _read_failure(status, headers, body or b"", asked)
    )
    request_id, delay_seconds, limit = (
        read_request_id(headers),
        read_delay_seconds(headers, now),
        read_rate_limit(headers),
    )
    if found.kind is OK:  # nothing to explain
        return Verdict(OK, status, request_id, None, delay_seconds, rate_limit=limit), found.shown
    said = found.said or _NOTHING_SAID
    error = said.error
    code = error.code or error.type
    safe = partial(readable, secrets=secrets, sent=sent)
    return Verdict(
        found.kind,
        status,
        request_id,
        None if found.error is None else safe(found.error).removesuffix(":"),
        delay_seconds,
        found.halt,
        slow_down=wants_slower(error),
        rate_limit=limit,
        foreign=found.foreign,
        envelope=said.envelope,
        code=safe(str(code))[:_LONGEST_NAME] if said.envelope and code else None,
        param=safe(error.param)[:_LONGEST_NAME] if said.envelope and error.param else None,
        certain=found.kind is Kind.REJECTED and said.envelope and is_certain(error),
        about=found.about,
    ), found.shown


def _read_failure(status: int, headers: Mapping[str, str], body: bytes, asked: str | None) -> _Finding:
    said = read_error(body)
    name = _name(status)
    text = f"{name}: {explain_failure(said.error, body)}"
    return _look_up(status, headers, said, body, asked, text=text, but=f"{name}, but the answer")


def _look_up(
    status: int, headers: Mapping[str, str], said: Said, body: bytes, asked: str | None, *, text: str, but: str
) -> _Finding:
    about = None
    if status in ABSENT:
        if (other := other_than(said, asked)) is not None:
            return _about_another(but, other, said)
        about = missing(said, body, asked)
    should_retry = read_should_retry(headers)
    kind, halt = classify(status, said.error, envelope=said.envelope, about=about, should_retry=should_retry)
    return _Finding(kind, halt, text, said=said, about=about)


def _read_success(status: int, headers: Mapping[str, str], body: bytes | None, asked: str | None) -> _Finding:
    """Judge a 2xx. Only the requested object is a success: any other body did not come from this service."""
    if body is None or status in _WITHOUT_BODY:
        return _UNREAD
    but = f"HTTP {status}, but the answer"
    try:
        essence = _essence_decoder.decode(body)
        shown_id, error, is_page = essence.id, essence.error, asked is None and bytes(essence.data).startswith(b"[")
        shown = Shown() if essence.metadata is msgspec.UNSET else Shown(essence.metadata or {})
    except STRICT_ERRORS:
        try:
            found = load_json(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return _foreign(f"{but} {explain_nonsense(body)}")
        shown_id, error, is_page = found.get("id"), found.get("error"), isinstance(found.get("data"), list)
        shown = Shown(*fit_metadata(found["metadata"])) if "metadata" in found else Shown()
    if asked is not None and isinstance(shown_id, str) and shown_id != asked:
        return _about_another(but, shown_id)
    if error:
        return _read_hidden_failure(but, headers, body, asked)
    if asked is None:
        return _Finding(shown=shown) if is_page else _foreign(f"{but} is no page of a list")
    return _Finding(shown=shown) if shown_id == asked else _foreign(f"{but} shows no id")


def _read_hidden_failure(but: str, headers: Mapping[str, str], body: bytes, asked: str | None) -> _Finding:
    """Judge a 2xx that holds an error: by that error, if the table has it."""
    said = read_error(body)
    text = f"{but} holds an error: {explain_failure(said.error, b'')}"
    status = status_of(said.error)
    if status is None:
        return _foreign(text, said)
    return _look_up(status, headers, said, body, asked, text=text, but=but)


def _about_another(but: str, other: str, said: Said | None = None) -> _Finding:
    named = f": {other}" if _ID.fullmatch(other) else ""
    return _foreign(f"{but} is about another completion{named}", said)


def _foreign(error: str, said: Said | None = None) -> _Finding:
    return _Finding(Kind.RETRY, error=error, foreign=True, said=said)


def _name(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
