"""The state of flow control, in words that fit on a line."""

from typing import TYPE_CHECKING

from worker.flow import Cause, FlowState, GateState

if TYPE_CHECKING:
    from worker.engine import Ending  # slow to import, and `status` does not need it


def flow_words(flow: FlowState) -> list[str]:
    """Return the parts of flow control's state, in a few words each."""
    words = [f"{flow.in_flight} in flight", f"{flow.rate_per_second * 60:,.0f}/min"]
    if flow.rate_limit_per_second is not None:
        words.insert(0, f"limit found {flow.rate_limit_per_second * 60:,.0f}/min")
    if flow.throttled:
        words.append(f"{flow.throttled} throttled")
    if flow.gate is not GateState.OPEN:
        words.insert(0, f"HALTED: {flow.cause.sentence if flow.cause else ''}, {_probe(flow.next_probe_in_seconds)}")
    elif flow.slowed_by is not None:
        words.insert(0, f"SLOWED: {flow.slowed_by.sentence}")
    elif flow.closed_for_seconds:
        words.append(f"waiting {flow.closed_for_seconds:.1f} s as told")
    return words


def _probe(seconds: float | None) -> str:
    if seconds is None:
        return "a probe is under way"
    return f"probe in {seconds:.0f} s" if seconds > 0.0 else "probe with the next change that is due"


def ending_words(ending: "Ending", cause: Cause | None, closed_for_seconds: float) -> str:
    """Describe why a run ended early."""
    match ending:
        case "closed":
            return f"the service asks to wait for another {closed_for_seconds:,.0f} s"
        case "stuck" if cause is None:
            return "stuck: the remaining changes keep failing"
        case "outage" if cause is not None:
            return cause.sentence
        case "results_lost" if cause is not None and cause.error is not None:
            return cause.error
        case _:
            return f"{ending}: {cause.sentence}" if cause else str(ending)
