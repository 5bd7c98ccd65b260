"""Flow control: whether a request may start, how many at once, and when the next one.

Begin with `flow.py`: `Flow.admit` is all that a caller needs. `gate.py` halts and probes, `concurrency.py` bounds what
is in flight, `pacer.py` finds the rate, `bucket.py` keeps it. `tuning.py` holds every constant. Nothing here knows a
clock of its own: times are handed in, so that tests run on a virtual clock.
"""

from worker.flow.ended import (
    ABSENT,
    ANSWERED,
    DROPPED,
    FAILED,
    FAULT,
    FOREIGN,
    METADATA_HIDDEN,
    OUTAGE,
    REFUSED,
    REJECTED,
    SERVICE_MERGES,
    SUCCEEDED,
    End,
    Ended,
    Limits,
    Operation,
)
from worker.flow.flow import Flow
from worker.flow.gate import Cause, GateEvent, GateState
from worker.flow.permit import Permit
from worker.flow.state import Closed, FlowState, Halted, Paused, parse_state

__all__ = [
    "ABSENT",
    "ANSWERED",
    "DROPPED",
    "FAILED",
    "FAULT",
    "FOREIGN",
    "METADATA_HIDDEN",
    "OUTAGE",
    "REFUSED",
    "REJECTED",
    "SERVICE_MERGES",
    "SUCCEEDED",
    "Cause",
    "Closed",
    "End",
    "Ended",
    "Flow",
    "FlowState",
    "GateEvent",
    "GateState",
    "Halted",
    "Limits",
    "Operation",
    "Paused",
    "Permit",
    "parse_state",
]
