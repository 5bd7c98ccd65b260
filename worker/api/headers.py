"""The headers of an answer: its request id, a delay, a rate limit, and whether to retry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

# A longer wait must be a mistake. A wait of days belongs to a quota that starts anew with a month.
LONGEST_DELAY_SECONDS: Final = 365 * 86_400.0
_LONGEST_RESET_SECONDS: Final = 86_400.0
_LONGEST_REQUEST_ID: Final = 200

_REQUEST_ID = "x-request-id"
_SHOULD_RETRY = "x-should-retry"
_RETRY_AFTER_MS = "retry-after-ms"
_RETRY_AFTER = "retry-after"
_DATE = "date"
KEEP_ALIVE = "keep-alive"
_LIMIT = "x-ratelimit-limit-requests"
_REMAINING = "x-ratelimit-remaining-requests"
_RESET = "x-ratelimit-reset-requests"

_TIMEOUT = re.compile(r"\btimeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?")
_DURATION = re.compile(r"(?:[0-9]{1,15}(?:\.[0-9]{1,15})?(?:ns|us|µs|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9.]+)([^0-9.]+)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rate-limit headers for requests. A field is None if its header is missing or makes no sense.

    Args:
        limit_requests: allowed in the limit's period, which no header tells.
        remaining_requests: left in the period.
        reset_seconds: until all of them are there again.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_seconds: float | None = None


def read_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the answer's ``x-request-id``, in a form that any log and store can take."""
    request_id = headers.get(_REQUEST_ID)
    if not request_id:
        return None
    if not request_id.isascii() or not request_id.isprintable():
        request_id = request_id.encode("ascii", "replace").decode()
        request_id = "".join(character if character.isprintable() else "?" for character in request_id)
    return request_id[:_LONGEST_REQUEST_ID]


def read_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what ``x-should-retry`` says; None without it."""
    return {"true": True, "false": False}.get(headers.get(_SHOULD_RETRY, "").strip().lower())


def read_delay_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the delay that the service asks for: ``retry-after-ms``, or else ``retry-after``.

    A delay that is negative, not a number, infinite, unreadable or above a year counts as none.

    Args:
        headers: of the answer; names in lower case, or a mapping that ignores case.
        now: Unix time in seconds, for a ``retry-after`` that is a date (RFC 9110, 10.2.3). The answer's ``date`` is
            preferred, since it comes from the same clock.
    """
    in_ms = headers.get(_RETRY_AFTER_MS)
    if in_ms is not None and (delay := _number(in_ms)) is not None and delay <= LONGEST_DELAY_SECONDS * 1000:
        return delay / 1000
    told = headers.get(_RETRY_AFTER)
    if told is None:
        return None
    delay = _number(told)
    if delay is None and (due := _unix_time(told)) is not None:
        sent = _unix_time(headers.get(_DATE, ""))
        base = now if sent is None else sent
        delay = None if base is None else due - base
    return delay if delay is not None and 0 <= delay <= LONGEST_DELAY_SECONDS else None


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the ``x-ratelimit-*-requests`` headers; None if they hold nothing.

    A limit of 0, which Azure has sent, and -1 anywhere mean no information.
    """
    limit, remaining, reset = headers.get(_LIMIT), headers.get(_REMAINING), headers.get(_RESET)
    if limit is None and remaining is None and reset is None:
        return None
    rate_limit = RateLimit(_count(limit) or None, _count(remaining), read_duration_seconds(reset or ""))
    return None if rate_limit == RateLimit() else rate_limit


def read_keep_alive_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the server keeps an idle connection, by ``Keep-Alive: timeout=N``; None without it."""
    told = headers.get(KEEP_ALIVE)
    found = None if told is None else _TIMEOUT.search(told)
    return None if found is None else float(found[1])


def read_duration_seconds(text: str) -> float | None:
    """Read ``2ms``, ``6m0s``, ``1h23m31s`` or plain seconds; None for anything else, and for more than a day."""
    text = text.strip()
    seconds = _number(text)
    if seconds is None and _DURATION.fullmatch(text):
        seconds = sum(float(figure) * _UNIT_SECONDS[unit] for figure, unit in _DURATION_PART.findall(text))
    return seconds if seconds is not None and seconds <= _LONGEST_RESET_SECONDS else None


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _count(text: str | None) -> int | None:
    number = None if text is None else _number(text)
    return None if number is None else int(number)


def _unix_time(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # the parser raises these on odd texts
        return None
