"""Flow control: find the service's limit, keep it, and halt instead of burning the queue."""

from worker.flow.flow import Closed, Flow, FlowState, Halted, Permit, parse_state
from worker.flow.gate import OUTAGE, GateEvent, GateState

__all__ = ["OUTAGE", "Closed", "Flow", "FlowState", "GateEvent", "GateState", "Halted", "Permit", "parse_state"]
