"""The table of failures: what a status means, together with the service's error."""

import re
from http import HTTPStatus
from typing import Final

from worker.api.models import ServiceError
from worker.api.verdict import About, Halt, Kind

_SLOW_DOWN: Final = "slow_down"

_HALTS: dict[int, Halt] = {
    HTTPStatus.UNAUTHORIZED: Halt.UNAUTHORIZED,
    HTTPStatus.PAYMENT_REQUIRED: Halt.QUOTA,
    HTTPStatus.FORBIDDEN: Halt.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED: Halt.WRONG_URL,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: Halt.PROXY,
}
_CLIENT_CLOSED_REQUEST: Final = 499  # nginx's own
_RETRIED = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.LOCKED,
        HTTPStatus.FAILED_DEPENDENCY,  # what is behind the service failed
        HTTPStatus.TOO_EARLY,
        _CLIENT_CLOSED_REQUEST,
    }
)
ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})

# Gateways use other statuses for it than the service's 429.
_QUOTA_STATUSES = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}
)
_QUOTA_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted", "budget_exceeded", "access_terminated"})
_QUOTA_CODE_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded")
_QUOTA_CODE_BEGINNING = "billing_"

_CERTAIN_CODES = frozenset(
    {
        "object_above_max_properties",
        "string_above_max_length",
        "property_name_above_max_length",
        "invalid_type",
    }
)
_OF_METADATA = re.compile(r"metadata(?:[.\[].*)?", re.DOTALL)

# The status for an error that came with a 2xx.
_STATUS_OF_NAME = {
    "rate_limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "rate_limit_error": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_requests": HTTPStatus.TOO_MANY_REQUESTS,
    _SLOW_DOWN: HTTPStatus.TOO_MANY_REQUESTS,
    "invalid_api_key": HTTPStatus.UNAUTHORIZED,
    "authentication_error": HTTPStatus.UNAUTHORIZED,
    "permission_denied": HTTPStatus.FORBIDDEN,
    "permission_error": HTTPStatus.FORBIDDEN,
}
# No status that blames the change is among them: an answer of success and failure at once proves nothing about it.
_STATUSES_OF_CODE = frozenset({401, 402, 403, 404, 407, 410, 429})


def classify(
    status: int,
    error: ServiceError,
    *,
    envelope: bool,
    about: About | None,
    should_retry: bool | None,
) -> tuple[Kind, Halt | None]:
    """Look up a failure.

    Args:
        envelope: the error has the service's format. Without it, a 4xx comes from a server on the way, and says nothing
            about the change.
        about: what is missing, for a 404 and a 410.
        should_retry: the answer's ``x-should-retry``. With a 5xx, false means "not now".
    """
    if status in _QUOTA_STATUSES and is_about_quota(error):
        return Kind.HALTED, Halt.QUOTA
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Kind.THROTTLED, None
    if (halt := _halt_of(status, about)) is not None:
        return Kind.HALTED, halt
    if status in ABSENT:
        return (Kind.REJECTED if should_retry is False else Kind.NOT_FOUND), None
    if not envelope or not 400 <= status < 500:  # noqa: PLR2004 -- the class that blames the request
        return Kind.RETRY, None
    if should_retry is None:
        should_retry = status in _RETRIED
    return (Kind.RETRY if should_retry else Kind.REJECTED), None


def _halt_of(status: int, about: About | None) -> Halt | None:
    is_elsewhere = 300 <= status < 400  # noqa: PLR2004 -- the class of statuses that points there
    if is_elsewhere or (status in ABSENT and about != "completion"):
        return Halt.WRONG_URL
    return _HALTS.get(status)


def status_of(error: ServiceError) -> int | None:
    """The status that fits an error that came with a 2xx; None if the error says too little."""
    if is_about_quota(error):
        return HTTPStatus.TOO_MANY_REQUESTS
    if is_certain(error):
        return HTTPStatus.BAD_REQUEST
    if is_absence(error):
        return HTTPStatus.NOT_FOUND
    for name in _names(error):
        if name in _STATUS_OF_NAME:
            return _STATUS_OF_NAME[name]
        if name.isdecimal() and int(name) in _STATUSES_OF_CODE:
            return int(name)
    return None


def is_about_quota(error: ServiceError) -> bool:
    """Whether money or a budget is used up, so that waiting for seconds does not help."""
    return any(
        name in _QUOTA_CODES or name.endswith(_QUOTA_CODE_ENDINGS) or name.startswith(_QUOTA_CODE_BEGINNING)
        for name in _names(error)
    )


def is_certain(error: ServiceError) -> bool:
    """Whether the metadata that was sent is the only possible cause."""
    return error.code in _CERTAIN_CODES and error.param is not None and _OF_METADATA.fullmatch(error.param) is not None


def is_absence(error: ServiceError) -> bool:
    """Whether the service has no such completion. It answers a wrong URL differently."""
    return error.code == "not_found" and error.param == "completion_id"


def wants_slower(error: ServiceError) -> bool:
    """Whether the service asks for a lasting decrease of the rate."""
    return _SLOW_DOWN in {error.code, error.type}


def _names(error: ServiceError) -> list[str]:
    return [str(name) for name in (error.code, error.type) if name is not None]
