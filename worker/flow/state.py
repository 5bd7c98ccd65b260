"""What flow control tells its callers: why nothing starts, and its state."""

from dataclasses import dataclass, field, replace

import msgspec

from worker.flow.ended import Operation
from worker.flow.gate import Cause, GateState


class Halted(Exception):
    """The gate is halted: give the claim back."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"halted: {reason}")
        self.reason = reason


class Closed(Exception):
    """The service asks for a longer delay than the caller has patience for: give the claim back.

    Args:
        delay_seconds: until the delay ends.
    """

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"closed for another {delay_seconds:.3f} s")
        self.delay_seconds = delay_seconds


class Paused(Exception):
    """A person has paused the queue: give the claim back."""


@dataclass(frozen=True, slots=True)
class FlowState:
    """The state of flow control, for people and for other workers.

    Args:
        rate_per_second: the rate that is aimed at; while no limit is known, the rate of late.
        rate_limit_per_second: the service's limit as this worker or an earlier run found it; None while unknown.
        in_flight: requests under way.
        slots: how many requests may run at once.
        throttled: answers 429 so far.
        requests: started so far.
        seconds_closed: how long the service made all requests wait, in sum.
        gate: ``open``, ``halted`` or ``half_open``.
        cause: of the halt; None while the gate is open.
        slowed_by: what twenty completions in a row met, so that only one request a second starts.
        halted_for_seconds: how long the halt has lasted; None while the gate is open.
        next_probe_in_seconds: None while the gate is open or a probe is under way.
        closed_for_seconds: how much longer the service makes all requests wait; 0 when it does not.
        got_through_seconds_ago: by kind of call, when the latest request started that got through.
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


def parse_state(text: str, age_seconds: float) -> FlowState | None:
    """Read the state that another worker wrote as JSON; None where its release writes another form.

    Args:
        age_seconds: how long ago that was. What counts the time, up or down, has gone on.
    """
    try:
        state = msgspec.json.decode(text, type=FlowState)
    except (msgspec.DecodeError, RecursionError):
        return None
    halted, probe = state.halted_for_seconds, state.next_probe_in_seconds
    return replace(
        state,
        halted_for_seconds=None if halted is None else halted + age_seconds,
        next_probe_in_seconds=None if probe is None else max(0.0, probe - age_seconds),
        closed_for_seconds=max(0.0, state.closed_for_seconds - age_seconds),
        got_through_seconds_ago={kind: ago + age_seconds for kind, ago in state.got_through_seconds_ago.items()},
    )
