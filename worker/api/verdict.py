"""What an answer of the service means for the change that was sent."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import msgspec

from worker.api.explain import explain_failure, explain_nonsense, read_error, readable
from worker.api.headers import RateLimit, read_delay_seconds, read_rate_limit, read_request_id, read_should_retry
from worker.api.models import ServiceError
from worker.api.parsing import STRICT_ERRORS, fit_metadata, load_json


class Kind(StrEnum):
    """What to do about a request."""

    OK = "ok"  # the service did it
    RETRY = "retry"  # it may work later; an attempt of the change is spent
    THROTTLED = "throttled"  # too fast: wait, slow down; not the change's fault
    NOT_FOUND = "not_found"  # not visible yet, or gone: only time tells
    REJECTED = "rejected"  # this change is bad: no retry will help
    HALTED = "halted"  # nothing will work until somebody acts; not the change's fault


class Halt(StrEnum):
    """Why all work has to stop."""

    UNAUTHORIZED = "unauthorized"  # 401: a bad key, or one that lacks a scope
    FORBIDDEN = "forbidden"  # 403
    QUOTA = "quota"  # 429 of type insufficient_quota
    WRONG_URL = "wrong_url"  # a redirect, or a 404 that is not about the completion


class Verdict(msgspec.Struct, frozen=True):
    """The meaning of one request's end.

    Args:
        status: HTTP status; None when no answer came.
        request_id: the answer's ``x-request-id``.
        error: what went wrong, at most 500 characters, with neither key nor metadata value in it; None when OK.
        delay_seconds: what the service asked to wait, where it did and it is plausible.
        halt: set with `Kind.HALTED` alone.
        transport: no complete answer came: refused, dropped, cut off, timed out.
        slow_down: the service asked for a lasting decrease of the rate.
        rate_limit: what the answer's rate-limit headers say, where there were any.
    """

    kind: Kind
    status: int | None = None
    request_id: str | None = None
    error: str | None = None
    delay_seconds: float | None = None
    halt: Halt | None = None
    transport: bool = False
    slow_down: bool = False
    rate_limit: RateLimit | None = None


class _Essence(msgspec.Struct):
    """What the worker needs of a success; the rest of the body is skipped."""

    metadata: dict[str, str] | None = None
    error: Any = None


_essence_decoder = msgspec.json.Decoder(_Essence)

_SLOW_DOWN = "slow_down"
_QUOTA_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted", "billing_not_active"})
_QUOTA_CODE_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded")
_ABSENT_COMPLETION = "completion id not found"

_HALTS = {
    HTTPStatus.UNAUTHORIZED: Halt.UNAUTHORIZED,
    HTTPStatus.PAYMENT_REQUIRED: Halt.QUOTA,
    HTTPStatus.FORBIDDEN: Halt.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED: Halt.WRONG_URL,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: Halt.UNAUTHORIZED,
}
_RETRIED = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})


def verdict(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    api_key: str = "",
    sent: Iterable[str] = (),
    now: float | None = None,
) -> Verdict:
    """Judge an answer.

    Args:
        headers: names in lower case, or a mapping that ignores case.
        api_key: never to stand in the verdict's error.
        sent: metadata values that must not stand there either.
        now: Unix time in seconds, for a ``retry-after`` that is a date.
    """
    return judge(status, headers, body, api_key=api_key, sent=sent, now=now)[0]


def judge(
    status: int,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    api_key: str = "",
    sent: Iterable[str] = (),
    now: float | None = None,
) -> tuple[Verdict, dict[str, str] | None]:
    """Judge an answer, as `verdict` does, and return with it the metadata that a success shows.

    The metadata is None where the answer has none, has null, or something that is no metadata at all.

    Args:
        body: None when it was too large to be read.
    """
    metadata: dict[str, str] | None = None
    error, kind, halt, slow_down = None, Kind.OK, None, False
    if 200 <= status < 300:  # noqa: PLR2004 -- the class of statuses that says success
        metadata, complaint = (None, "is too large") if body is None else _read_success(body)
        if complaint is not None:
            kind, error = Kind.RETRY, f"HTTP {status}, but the answer {complaint}"
    else:
        said = read_error(body or b"")
        kind, halt = _classify(status, said, read_should_retry(headers))
        slow_down = _SLOW_DOWN in {said.code, said.type}
        error = f"{_name(status)}: {explain_failure(said, body or b'')}"
    return Verdict(
        kind,
        status,
        read_request_id(headers),
        None if error is None else readable(error, api_key=api_key, sent=sent).removesuffix(":"),
        read_delay_seconds(headers, now),
        halt,
        slow_down=slow_down,
        rate_limit=read_rate_limit(headers),
    ), metadata


def _read_success(body: bytes) -> tuple[dict[str, str] | None, str | None]:
    """The metadata that a success shows, and what is wrong with the body, where it makes no sense."""
    try:
        essence = _essence_decoder.decode(body)
        metadata, error = essence.metadata, essence.error
    except STRICT_ERRORS:
        try:
            found = load_json(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return None, explain_nonsense(body)
        metadata, error = fit_metadata(found.get("metadata")), found.get("error")
    if error is None:
        return metadata, None
    return None, f"holds an error: {explain_failure(read_error(body), b'')}"


def _classify(status: int, error: ServiceError, should_retry: bool | None) -> tuple[Kind, Halt | None]:  # noqa: FBT001 -- a header's word
    """The table of statuses other than success."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return (Kind.HALTED, Halt.QUOTA) if _is_about_quota(error) else (Kind.THROTTLED, None)
    if status in _HALTS:
        return Kind.HALTED, _HALTS[HTTPStatus(status)]
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        if not _is_about_completion(error):
            return Kind.HALTED, Halt.WRONG_URL
        return (Kind.REJECTED if should_retry is False else Kind.NOT_FOUND), None
    if 300 <= status < 400:  # noqa: PLR2004 -- the class of statuses that points elsewhere
        return Kind.HALTED, Halt.WRONG_URL
    if should_retry is None:
        should_retry = status in _RETRIED or not 400 <= status < 500  # noqa: PLR2004 -- the class that blames the request
    return (Kind.RETRY if should_retry else Kind.REJECTED), None


def _is_about_quota(error: ServiceError) -> bool:
    """Whether it is money or a budget that is used up, so that waiting seconds will not help."""
    names = [name for name in (error.code, error.type) if isinstance(name, str)]
    return any(name in _QUOTA_CODES or name.endswith(_QUOTA_CODE_ENDINGS) for name in names)


def _is_about_completion(error: ServiceError) -> bool:
    """Whether the service itself says that it has no such completion: a wrong URL is answered otherwise."""
    if error.code == "not_found" and error.param == "completion_id":
        return True
    return error.message is not None and error.message.lower().startswith(_ABSENT_COMPLETION)


def _name(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
