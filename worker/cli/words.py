"""What flow control is doing, in words that fit on a line."""

from worker.flow import FlowState, GateState


def flow_words(flow: FlowState) -> list[str]:
    """What flow control is doing, in a few words each."""
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
