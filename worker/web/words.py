"""What a worker is doing, said in a sentence that somebody who did not write it understands."""

import math
import time
from dataclasses import dataclass
from typing import Literal

from worker.flow import FlowState
from worker.queue.base import QueueStatus

_CAUSES = {
    "unauthorized": "the API key is refused (401)",
    "forbidden": "the API key lacks a permission (403)",
    "quota": "the quota is used up",
    "wrong_url": "the service's address is wrong",
    "outage": "the service fails or does not answer",
}


@dataclass(frozen=True, slots=True)
class State:
    """What is going on.

    Args:
        kind: for the colour.
        since: Unix time, seconds, at which it began, where that is of interest.
    """

    kind: Literal["busy", "idle", "waiting", "halted", "stopping", "blind"]
    title: str
    detail: str
    since: float | None = None


def state_of(
    flow: FlowState | None,
    status: QueueStatus | None,
    *,
    per_second: float,
    stopping: bool,
    store_error: str | None,
) -> State:
    """Say what a worker is doing.

    Args:
        flow: None before it has begun.
        status: None while the store does not answer.
        per_second: changes that are done with, over all workers.
    """
    if stopping:
        return State("stopping", "Stopping", "Nothing new is begun; requests under way may finish.")
    if flow is not None and flow.halt_reason is not None:
        return _halted(flow, flow.halt_reason)
    if status is None or flow is None:
        why = store_error or "The worker has not started yet"
        return State("blind", "The queue cannot be seen", f"{why[0].upper()}{why[1:].rstrip('.')}.")
    if flow.closed_for_seconds > 1.0:
        seconds = math.ceil(flow.closed_for_seconds)
        return State("waiting", "Waiting as told", f"The service asked everybody to wait: {seconds} s to go.")
    return _at_work(flow, status, per_second)


def _at_work(flow: FlowState, status: QueueStatus, per_second: float) -> State:
    if per_second > 0.0 or flow.in_flight:
        return State("busy", f"Applying {number(per_second)} a second", _pace(flow))
    if status.pending == 0:
        return State("idle", "Nothing to do", "Every change has been applied, or is among the dead letters.")
    if status.pending == status.waiting:
        return State("waiting", "Waiting to try again", "What is pending has failed before, and is due later.")
    if status.pending == status.waiting + status.in_flight:
        return State("waiting", "Waiting for others", "What is pending is in the hands of another worker.")
    return State("busy", "Starting", _pace(flow))


def _halted(flow: FlowState, reason: str) -> State:
    """Flow control's times are those of the monotonic clock."""
    since = None if flow.halted_since is None else time.time() - (time.monotonic() - flow.halted_since)
    cause = _CAUSES.get(reason, reason)
    if flow.next_probe_in_seconds is None:
        probe = "A probe is under way."
    elif flow.next_probe_in_seconds <= 0.0:
        probe = "The next probe goes out with the next change that is due."
    else:
        probe = f"Next probe in {math.ceil(flow.next_probe_in_seconds)} s."
    return State("halted", "Halted", f"{cause[0].upper()}{cause[1:]}. {probe}", since)


def _pace(flow: FlowState) -> str:
    if flow.limit_found_per_second is None:
        return f"No limit has been met so far; {_requests(flow.rate_per_second)} a second go out."
    return f"The limit found is {_requests(flow.limit_found_per_second)} a second."


def _requests(per_second: float) -> str:
    text = number(per_second)
    return f"{text} request" if text == "1" else f"{text} requests"


def number(value: float) -> str:
    """As many digits as are worth reading."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004 -- 10 when rounded
