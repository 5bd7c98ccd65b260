"""The verdict: what the end of a request means for the change that was sent."""

from enum import StrEnum
from typing import Final, Literal

import msgspec

from worker.api.headers import RateLimit

_LONGEST_PAUSE_SECONDS = 86_400.0

About = Literal["completion", "unclear", "url"]


class Kind(StrEnum):
    """What to do about a request."""

    OK = "ok"  # the service did it
    RETRY = "retry"  # it may work later; an attempt of the change is spent
    THROTTLED = "throttled"  # too fast: wait and slow down; not the change's fault
    NOT_FOUND = "not_found"  # not visible yet, or gone: time will tell
    REJECTED = "rejected"  # this change is bad: no retry will help
    HALTED = "halted"  # nothing works until a person acts; not the change's fault


# As nearly all are. In Python 3.11, to find a member of an Enum takes as long as a call.
OK: Final = Kind.OK


class Halt(StrEnum):
    """Why all work has to stop."""

    UNAUTHORIZED = "unauthorized"  # 401: a bad key, or one that lacks a scope
    FORBIDDEN = "forbidden"  # 403
    QUOTA = "quota"  # money or a budget is used up, with any status
    WRONG_URL = "wrong_url"  # a redirect, or a 404 that is not about the completion
    PROXY = "proxy"  # a proxy lets nothing through: 407, or it refuses the tunnel


class Verdict(msgspec.Struct, frozen=True):
    """The meaning of one request's end.

    Args:
        status: HTTP status; None if no answer came.
        request_id: the answer's ``x-request-id``.
        error: what went wrong, at most 500 characters, without secrets and metadata values; None if OK.
        delay_seconds: the wait that the service asks for, up to a year. A wait of days belongs to a quota.
        halt: set with `Kind.HALTED` only.
        transport: no complete answer came: refused, dropped, cut off or timed out.
        slow_down: the service asks for a lasting decrease of the rate.
        rate_limit: from the answer's rate-limit headers, if any.
        foreign: a whole answer came, but for another completion, or not from this service. Its connection is closed.
        envelope: the failure has the service's error format, ``{"error": {...}}``.
        code: of that error, or else its type; at most 100 characters, without secrets and metadata values.
        param: of that error, in the same form.
        certain: the service rejects the metadata itself: no other cause is possible.
        about: what a 404 or 410 says is missing: the ``completion``, the ``url``, or something ``unclear``.
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
        """The delay to wait for; None if the service named none, or one of more than a day."""
        delay = self.delay_seconds
        return delay if delay is not None and delay <= _LONGEST_PAUSE_SECONDS else None
