"""What the end of a request means for the change that was sent: the words for it."""

from enum import StrEnum
from typing import Literal

import msgspec

from worker.api.headers import RateLimit

_LONGEST_PAUSE_SECONDS = 86_400.0

About = Literal["completion", "unclear", "url"]


class Kind(StrEnum):
    """What to do about a request."""

    OK = "ok"  # the service did it
    RETRY = "retry"  # it may work later; an attempt of the change is spent
    THROTTLED = "throttled"  # too fast: wait, slow down; not the change's fault
    NOT_FOUND = "not_found"  # not visible yet, or gone: only time tells
    REJECTED = "rejected"  # this change is bad: no retry will help
    HALTED = "halted"  # nothing works until a person acts; not the change's fault


class Halt(StrEnum):
    """Why all work has to stop."""

    UNAUTHORIZED = "unauthorized"  # 401: a bad key, or one that lacks a scope
    FORBIDDEN = "forbidden"  # 403
    QUOTA = "quota"  # money or a budget is used up, whatever the status
    WRONG_URL = "wrong_url"  # a redirect, or a 404 that is not about the completion
    PROXY = "proxy"  # a proxy lets nothing through: 407, or it refuses the tunnel


class Verdict(msgspec.Struct, frozen=True):
    """The meaning of one request's end.

    Args:
        status: HTTP status; None when no answer came.
        request_id: the answer's ``x-request-id``.
        error: what went wrong, at most 500 characters, with neither secret nor metadata value in it; None when OK.
        delay_seconds: what the service asked to wait, where it did: up to a year. One of days is no pause of a
            service that is busy, but that of a quota.
        halt: set with `Kind.HALTED` alone.
        transport: no complete answer came: refused, dropped, cut off, timed out.
        slow_down: the service asked for a lasting decrease of the rate.
        rate_limit: what the answer's rate-limit headers say, where there were any.
        foreign: a whole answer came, and it is none to this request: about another completion, or no answer of this
            service at all. Its connection is closed.
        envelope: the failure came in the service's own form, ``{"error": {...}}``.
        code: of that error, else its type; at most 100 characters, and as free of secrets as `error` is.
        param: of that error, likewise.
        certain: the service says that it rejects the metadata itself: no other cause is possible.
        about: of a 404 or 410, what it says is missing: the ``completion``, the ``url``, or something ``unclear``.
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
    foreign: bool = False
    envelope: bool = False
    code: str | None = None
    param: str | None = None
    certain: bool = False
    about: About | None = None

    @property
    def pause_seconds(self) -> float | None:
        """The delay that can be waited for: None where the service named none, or one of more than a day."""
        delay = self.delay_seconds
        return delay if delay is not None and delay <= _LONGEST_PAUSE_SECONDS else None
