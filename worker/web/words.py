"""The worker's state in one sentence for users."""

import math
from dataclasses import dataclass
from typing import Literal

from worker.flow import Cause, FlowState
from worker.queue import QueueStatus, Standstill
from worker.terminal import printable

_CAUSES = {
    "unauthorized": "the API key is refused (401)",
    "forbidden": "requests are refused (403): the API key lacks a permission, or a firewall says no",
    "quota": "the quota is used up",
    "proxy": "the proxy lets nothing through",
    "wrong_url": "the service's address is wrong",
    "outage": "the service fails or does not answer",
    "refused": "something between here and the service refuses all requests",
    "foreign_answers": "what answers is not the service, or answers about other completions",
    "metadata_hidden": "the service does not show metadata, so that a merge would wipe it",
    "service_merges": "the service keeps what a replacement leaves out: set METASYNC_SEMANTICS",
    "absent": "twenty completions in a row are not there: does the key belong to another project?",
    "rejected": "the changes of twenty completions in a row are refused",
    "internal_error": "metasync fails at every change: this is a fault of its own",
}


@dataclass(frozen=True, slots=True)
class State:
    """The worker's state in words.

    Args:
        kind: selects the colour.
        since: Unix time in seconds at which it began; None if that is of no interest.
    """

    kind: Literal["busy", "idle", "needed", "waiting", "halted", "paused", "stopping", "blind"]
    title: str
    detail: str
    since: float | None = None


def state_of(  # noqa: PLR0911 -- one for each state
    flow: FlowState | None,
    status: QueueStatus | None,
    *,
    now: float,
    per_second: float,
    stopping: bool,
    standstill: Standstill | None = None,
    store_error: str | None,
) -> State:
    """Describe what a worker does.

    Args:
        flow: None before the worker has started.
        status: None while the store does not answer.
        now: Unix time, seconds.
        per_second: finished changes, over all workers.
        standstill: who paused the queue, and why; None if it is not paused.
    """
    if stopping:
        return State("stopping", "Stopping", "Nothing new is started; requests under way may finish.")
    if standstill is not None and status is not None:  # the store keeps the pause: without it, nothing is known of one
        return _paused(standstill, 0 if flow is None else flow.in_flight)
    if flow is not None and flow.cause is not None:
        return _halted(flow, flow.cause, now)
    if flow is not None and flow.slowed_by is not None:
        return _slowed(flow.slowed_by)
    if status is None or flow is None:
        why = store_error or "The worker has not started yet"
        return State("blind", "The queue cannot be seen", f"{why[0].upper()}{why[1:].rstrip('.')}.")
    if flow.closed_for_seconds > 1.0:
        seconds = math.ceil(flow.closed_for_seconds)
        return State("waiting", "Waiting as told", f"The service asked all clients to wait: {seconds} s to go.")
    return _at_work(flow, status, per_second)


def _at_work(flow: FlowState, status: QueueStatus, per_second: float) -> State:
    if per_second > 0.0 or flow.in_flight:
        return State("busy", f"Applying {number(per_second)} a second", _pace(flow))
    if status.pending == 0 and status.dead:
        letters = "dead letter" if status.dead == 1 else "dead letters"
        detail = "Nothing else is left to do. What could not be applied is kept until you replay or purge it."
        return State("needed", f"{status.dead:,} {letters} to look at", detail)
    if status.pending == 0:
        return State("idle", "Nothing to do", "Every change has been applied.")
    if status.pending == status.waiting:
        return State("waiting", "Waiting to try again", "What is pending has failed before, and is due later.")
    if status.pending == status.waiting + status.in_flight:
        return State(
            "waiting",
            "Waiting for others",
            "What is pending is held by another worker, or by one that has died: then until its lease runs out.",
        )
    return State("busy", "Starting", _pace(flow))


def _paused(standstill: Standstill, in_flight: int) -> State:
    words = printable(standstill.sentence)
    left = "" if not in_flight else f" Requests under way may finish: {in_flight:,} to go."
    detail = f"{words[0].upper()}{words[1:].rstrip('.')}. `metasync resume` lets workers go on.{left}"
    return State("paused", "Paused", detail, standstill.since)


def _halted(flow: FlowState, why: Cause, now: float) -> State:
    since = None if flow.halted_for_seconds is None else now - flow.halted_for_seconds
    cause = _CAUSES.get(why.reason, why.reason)
    told = f" The answer: {why.error}." if why.error else ""
    if flow.next_probe_in_seconds is None:
        probe = "A probe is under way."
    elif flow.next_probe_in_seconds <= 0.0:
        probe = "The next probe goes out with the next change that is due."
    else:
        probe = f"Next probe in {math.ceil(flow.next_probe_in_seconds)} s."
    return State("halted", "Halted", f"{cause[0].upper()}{cause[1:]}.{told} {probe}", since)


def _slowed(why: Cause) -> State:
    told = f" The answer: {why.error}." if why.error else ""
    cause = _CAUSES.get(why.reason, why.reason)
    return State("waiting", "Slowed", f"{cause[0].upper()}{cause[1:]}.{told} One request a second goes out.")


def _pace(flow: FlowState) -> str:
    if flow.rate_limit_per_second is None:
        return f"No limit has been met so far; {_requests(flow.rate_per_second)} a second go out."
    return f"The limit found is {_requests(flow.rate_limit_per_second)} a second."


def _requests(per_second: float) -> str:
    text = number(per_second)
    return f"{text} request" if text == "1" else f"{text} requests"


def number(value: float) -> str:
    """Format a number with few digits."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004 -- 10 when rounded
