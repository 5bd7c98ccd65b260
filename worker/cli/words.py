"""What flow control is doing, in words that fit on a line."""

from worker.flow import FlowState, GateState


def flow_words(flow: FlowState) -> list[str]:
    """What flow control is doing, in a few words each."""
    words = [f"{flow.in_flight} in flight", f"{flow.rate_per_second * 60:,.0f}/min"]
    if flow.limit_found_per_second is not None:
        words.append(f"limit found {flow.limit_found_per_second * 60:,.0f}/min")
    if flow.throttled:
        words.append(f"{flow.throttled} throttled")
    if flow.gate is not GateState.OPEN:
        probe = (
            "a probe is under way"
            if flow.next_probe_in_seconds is None
            else f"probe in {flow.next_probe_in_seconds:.0f} s"
        )
        words.append(f"HALTED: {flow.halt_reason}, {probe}")
    elif flow.closed_for_seconds:
        words.append(f"waiting {flow.closed_for_seconds:.1f} s as told")
    return words
