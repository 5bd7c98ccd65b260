"""One rate for all workers: its quota is granted in blocks, by the generic cell rate algorithm.

The store keeps only the time at which the next request is due. Each granted request moves it on by one interval. No
request is granted that is due later than a little ahead of now: so no worker hoards quota, and unused time is never
made up.
"""

import math

import msgspec

_SECONDS_PER_MINUTE = 60.0
# No due time is further ahead than this, unless the store's clock was put back.
_FURTHEST_SECONDS = 10.0
_ENOUGH = 1e-6  # rounding of floats


class Grant(msgspec.Struct, frozen=True):
    """The right to so many requests, the first due after `wait_seconds`, each further one an interval later.

    Args:
        requests: how many; 0 if it is too early: then ask again after the wait.
        wait_seconds: from now.
    """

    requests: int
    wait_seconds: float


def interval_seconds(per_minute: float) -> float:
    """Return the time between two requests.

    Raises:
        ValueError: the rate is not a positive number.
    """
    if not 0.0 < per_minute < math.inf:
        raise ValueError(f"the rate must be a positive number of requests a minute, not {per_minute}")
    return _SECONDS_PER_MINUTE / per_minute


def grant(due_at: float, now: float, requests: int, *, per_minute: float, ahead_seconds: float) -> tuple[Grant, float]:
    """Grant a part of the quota.

    Args:
        due_at: when the next request is due; Unix time, seconds, by the store's clock, as is `now`.
        requests: how many are wanted.
        per_minute: the rate of all workers together.
        ahead_seconds: how far ahead of now the last request may be due.

    Returns:
        The grant, and the new due time of the next request.
    """
    interval = interval_seconds(per_minute)
    starts_at = min(max(due_at, now), now + _FURTHEST_SECONDS + interval)
    room = math.floor((now + ahead_seconds - starts_at) / interval + _ENOUGH) + 1
    granted = max(0, min(requests, room))
    if not granted:
        return Grant(0, starts_at - now - ahead_seconds), min(due_at, starts_at)
    return Grant(granted, starts_at - now), starts_at + granted * interval
