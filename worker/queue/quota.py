"""One rate for any number of workers: its quota is handed out in blocks, by the generic cell rate algorithm.

All that a store keeps is when the next request will be due. Each request that is granted moves that on by one interval,
and none is granted that is due later than a little ahead of now: so no worker hoards, and time that passed unused is
never made up.
"""

import math
from dataclasses import dataclass

_SECONDS_PER_MINUTE = 60.0
# No store reaches further ahead than this: one that says so had its clock put back.
_FURTHEST_SECONDS = 10.0
_ENOUGH = 1e-6  # sums of tenths do not come out even


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to so many requests, the first due after `wait_seconds`, each further one an interval later.

    Args:
        requests: how many; 0 when it is too early to ask: then the wait is until asking makes sense.
        wait_seconds: from now.
    """

    requests: int
    wait_seconds: float


def interval_seconds(per_minute: float) -> float:
    """The time between two requests.

    Raises:
        ValueError: the rate is not a positive number.
    """
    if not 0.0 < per_minute < math.inf:
        raise ValueError(f"the rate must be a positive number of requests a minute, not {per_minute}")
    return _SECONDS_PER_MINUTE / per_minute


def grant(due_at: float, now: float, requests: int, *, per_minute: float, ahead_seconds: float) -> tuple[Grant, float]:
    """Hand out a part of the quota.

    Args:
        due_at: when the next request is due; Unix time, seconds, by the store's clock, as is `now`.
        requests: how many are wanted.
        per_minute: the rate that all together keep.
        ahead_seconds: how far ahead of now the last of them may be due.

    Returns:
        the grant, and when the next request is due after it.
    """
    interval = interval_seconds(per_minute)
    starts_at = min(max(due_at, now), now + _FURTHEST_SECONDS + interval)
    room = math.floor((now + ahead_seconds - starts_at) / interval + _ENOUGH) + 1
    granted = max(0, min(requests, room))
    if not granted:
        return Grant(0, starts_at - now - ahead_seconds), due_at
    return Grant(granted, starts_at - now), starts_at + granted * interval
