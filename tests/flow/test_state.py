"""A permit's end, and the state that workers tell one another."""

import msgspec

from worker.flow import End, Ended, FlowState, GateState, Permit, parse_state


def test_a_dropped_permit_ends_once_and_frees_its_slot() -> None:
    ends: list[Ended] = []
    permit = Permit("c", "update", 0.0, lambda _, ended: ends.append(ended))
    assert not permit.is_urgent
    permit.drop()
    permit.drop()
    assert [ended.end for ended in ends] == [End.DROPPED]


def test_a_state_is_read_as_it_was_written_and_what_another_release_writes_is_none() -> None:
    state = FlowState(
        rate_per_second=1.5,
        rate_limit_per_second=None,
        in_flight=2,
        slots=1,
        throttled=0,
        requests=3,
        seconds_closed=0.0,
        gate=GateState.OPEN,
        cause=None,
        slowed_by=None,
        halted_for_seconds=None,
        next_probe_in_seconds=None,
        closed_for_seconds=0.0,
        got_through_seconds_ago={"get": 0.5},
    )
    text = msgspec.json.encode(state).decode()
    assert parse_state(text) == state
    for other in ("{}", "no JSON", text.replace('"slots":1', '"slots":"one"'), "[" * 100_000):
        assert parse_state(other) is None
