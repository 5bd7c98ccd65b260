"""Headers about the rate limit, in each form that the service has been seen to use."""

import math
from email.utils import formatdate

from worker.simulator.limiter import Admission
from worker.simulator.options import Hint, RateLimit

_WRONG_SHARE = 0.1
_MINUTES_PER_DAY = 1_440


def retry_after(hint: Hint, wait_seconds: float, now: float) -> tuple[dict[str, str], float | None]:
    """Return the headers that tell a client to wait, and until which Unix time (None if they say nothing).

    Args:
        hint: the form.
        wait_seconds: the true waiting time.
        now: Unix time.
    """
    match hint:
        case "none":
            return {}, None
        case "seconds":
            seconds = max(1, math.ceil(wait_seconds))
            return {"Retry-After": str(seconds)}, now + seconds
        case "date":
            until = math.ceil(now + wait_seconds)
            # A client may measure from the answer's date, and the simulator's clock may differ from the machine's.
            return {"Retry-After": _http_date(until), "Date": _http_date(now)}, float(until)
        case "ms" | "wrong":
            share = _WRONG_SHARE if hint == "wrong" else 1.0
            ms = max(1, math.ceil(wait_seconds * share * 1_000))
            return {"Retry-After-Ms": str(ms)}, now + ms / 1_000


def rate_limit_headers(limit: RateLimit, admission: Admission, admitted: int) -> dict[str, str]:
    """Return the ``x-ratelimit-*-requests`` headers of one answer.

    Args:
        admitted: how many requests have been admitted in total.
    """
    per_minute = limit.requests_per_minute
    match limit.headers:
        case "none":
            return {}
        case "true":
            most, left = round(per_minute), int(per_minute * admission.left)
            reset = duration(admission.reset_seconds)
        case "per-second":
            most = math.ceil(per_minute / 60)
            left, reset = int(most * admission.left), str(math.ceil(admission.reset_seconds))
        case "per-day":
            most = round(per_minute * _MINUTES_PER_DAY)
            left, reset = most - admitted % most, str(_MINUTES_PER_DAY * 60)
    if not left and limit.headers != "true":
        reset = "-1"
    return {
        "X-RateLimit-Limit-Requests": str(most),
        "X-RateLimit-Remaining-Requests": str(left),
        "X-RateLimit-Reset-Requests": reset,
    }


def duration(seconds: float) -> str:
    """Format a time as the service does: ``20ms``, ``1s``, ``1.5s``, ``6m0s``, ``1h23m31s``.

    As in the service's examples, fractions of a second appear only below a minute.
    """
    ms = max(0, math.ceil(seconds * 1_000))
    if ms < 1_000:  # noqa: PLR2004 -- a second
        return f"{ms}ms"
    if ms < 60_000:  # noqa: PLR2004 -- a minute
        return f"{ms / 1_000:g}s"
    minutes, whole_seconds = divmod(math.ceil(ms / 1_000), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{whole_seconds}s"


def _http_date(unix_seconds: float) -> str:
    return formatdate(int(unix_seconds), usegmt=True)
