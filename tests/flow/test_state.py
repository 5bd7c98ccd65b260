"""A permit's end, and the state that workers tell one another."""

from dataclasses import replace

import msgspec

from worker.flow import End, Ended, FlowState, GateState, Permit, parse_state

STATE = FlowState(
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


def test_a_dropped_permit_ends_once_and_frees_its_slot() -> None:
    ends: list[Ended] = []
    permit = Permit("c", "update", 0.0, lambda _, ended: ends.append(ended))
    assert not permit.is_urgent
    permit.drop()
    permit.drop()
    assert [ended.end for ended in ends] == [End.DROPPED]


def test_a_state_is_read_as_it_was_written_and_what_another_release_writes_is_none() -> None:
    text = msgspec.json.encode(STATE).decode()
    assert parse_state(text, 0.0) == STATE
    for other in ("{}", "no JSON", text.replace('"slots":1', '"slots":"one"'), "[" * 100_000):
        assert parse_state(other, 0.0) is None


def test_what_counts_the_time_in_a_state_has_gone_on_since_it_was_written() -> None:
    state = replace(
        STATE,
        in_flight=0,
        gate=GateState.HALTED,
        halted_for_seconds=4.0,
        next_probe_in_seconds=15.0,
        closed_for_seconds=12.0,
    )
    text = msgspec.json.encode(state).decode()
    later = replace(
        state,
        halted_for_seconds=14.0,
        next_probe_in_seconds=5.0,
        closed_for_seconds=2.0,
        got_through_seconds_ago={"get": 10.5},
    )
    assert parse_state(text, 10.0) == later
    assert parse_state(text, 20.0) == replace(
        later,
        halted_for_seconds=24.0,
        next_probe_in_seconds=0.0,
        closed_for_seconds=0.0,
        got_through_seconds_ago={"get": 20.5},
    )
