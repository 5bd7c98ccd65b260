"""What flow control says to its callers: why nothing starts, and what is going on."""

from dataclasses import dataclass, field

import msgspec

from worker.flow.ended import Operation
from worker.flow.gate import Cause, GateState


class Halted(Exception):
    """The gate is halted: give the claim back."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"halted: {reason}")
        self.reason = reason


class Closed(Exception):
    """The service asked everybody to wait for longer than the caller has patience: give the claim back.

    Args:
        delay_seconds: until then.
    """

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"closed for another {delay_seconds:.3f} s")
        self.delay_seconds = delay_seconds


class Paused(Exception):
    """Somebody has paused the queue: give the claim back."""


@dataclass(frozen=True, slots=True)
class FlowState:
    """What flow control is doing, for people.

    Args:
        rate_per_second: what is aimed at; while no limit is known, what was sent of late.
        rate_limit_per_second: the service's limit as this worker has found it, or an earlier run; None while unknown.
        slots: how many requests may run at once.
        throttled: answers 429 so far that were about the rate.
        requests: started so far.
        seconds_closed: how long a ``Retry-After`` kept everybody waiting, in sum.
        gate: ``open``, ``halted`` or ``half_open``.
        cause: why it is not open, by the answer that did it; None while it is open.
        slowed_by: what twenty completions in a row met alike: only one request a second is made.
        halted_for_seconds: how long everything has been halted; None when the gate is open.
        next_probe_in_seconds: None when the gate is open or a probe is under way.
        closed_for_seconds: how much longer a ``Retry-After`` runs; 0 when none does.
        got_through_seconds_ago: when the last request of each kind started that got through, by ``get`` and ``update``.
    """

    rate_per_second: float
    rate_limit_per_second: float | None
    in_flight: int
    slots: int
    throttled: int
    requests: int
    seconds_closed: float
    gate: GateState
    cause: Cause | None
    slowed_by: Cause | None
    halted_for_seconds: float | None
    next_probe_in_seconds: float | None
    closed_for_seconds: float
    got_through_seconds_ago: dict[Operation, float] = field(default_factory=dict)

    @property
    def halt_reason(self) -> str | None:
        return self.cause.reason if self.cause else None


def parse_state(text: str) -> FlowState | None:
    """Read what another worker wrote of itself, as JSON; None where its release says other things."""
    try:
        return msgspec.json.decode(text, type=FlowState)
    except (msgspec.DecodeError, RecursionError):
        return None
