"""Flow control: find the service's limit, keep it, and halt instead of burning the queue."""

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
from worker.flow.flow import Closed, Flow, FlowState, Halted, Paused, parse_state
from worker.flow.gate import Cause, GateEvent, GateState
from worker.flow.permit import Permit

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
