"""The gate: when it halts, when it probes, when it opens."""

import math

import pytest

from worker.flow.gate import OUTAGE, Gate, GateEvent, GateState


def _fail(gate: Gate, now: float, completion_id: str, *, sent_at: float | None = None) -> GateEvent | None:
    return gate.failed(now, completion_id, sent_at=now if sent_at is None else sent_at, probe=False)


def _halted(reason: str = "unauthorized", now: float = 100.0) -> Gate:
    gate = Gate(0.0)
    gate.halt(now, reason, sent_at=now, probe=False)
    return gate


def _in_outage(now: float = 100.0) -> Gate:
    gate = Gate(0.0)
    for number in range(5):
        _fail(gate, now, f"c{number}")
    return gate


def test_a_gate_is_open_at_first() -> None:
    gate = Gate(0.0)
    assert gate.is_open
    assert gate.state is GateState.OPEN
    assert gate.reason is None
    assert gate.next_probe_in_seconds(0.0) == gate.retry_in_seconds(0.0) == 0.0
    assert not gate.take_probe(0.0)


@pytest.mark.parametrize("reason", ["unauthorized", "forbidden", "quota", "wrong_url"])
def test_a_refusal_of_everybody_halts_at_once(reason: str) -> None:
    gate = Gate(0.0)
    assert gate.halt(1.0, reason, sent_at=0.5, probe=False) == GateEvent("halted", reason, next_probe_in_seconds=5.0)
    assert gate.state is GateState.HALTED
    assert (gate.reason, gate.halted_since) == (reason, 1.0)


def test_a_halt_is_reported_once() -> None:
    gate = _halted()
    assert gate.halt(100.1, "unauthorized", sent_at=99.0, probe=False) is None
    assert gate.halt(100.2, "quota", sent_at=99.0, probe=False) is None
    assert gate.reason == "unauthorized"


def test_five_failures_in_a_row_are_an_outage() -> None:
    gate = Gate(0.0)
    events = [_fail(gate, float(number), f"c{number}") for number in range(5)]
    assert events[:4] == [None] * 4
    assert events[4] == GateEvent("halted", OUTAGE, next_probe_in_seconds=1.0)


def test_failures_of_one_completion_are_no_outage() -> None:
    gate = Gate(0.0)
    for second in range(20):
        assert _fail(gate, float(second), "the-bad-one") is None
    assert gate.is_open


@pytest.mark.parametrize("word", ["succeeded", "throttled"])
def test_any_answer_ends_the_row_of_failures(word: str) -> None:
    gate = Gate(0.0)
    for number in range(4):
        _fail(gate, 1.0, f"c{number}")
    if word == "succeeded":
        gate.succeeded(1.0, probe=False)
    else:
        gate.throttled(1.0, 1.0, probe=False)
    assert _fail(gate, 1.0, "c4") is None
    assert gate.is_open


def test_a_cancelled_request_says_nothing_about_an_outage() -> None:
    gate = Gate(0.0)
    for number in range(4):
        _fail(gate, 1.0, f"c{number}")
    gate.dropped(probe=False)
    assert _fail(gate, 1.0, "c4")


def _probe_times(gate: Gate, now: float, probes: int) -> list[float]:
    times = []
    for _ in range(probes):
        now += gate.next_probe_in_seconds(now)
        assert gate.take_probe(now)
        times.append(now)
        gate.failed(now, "probe", sent_at=now, probe=True)
    return times


def test_probes_of_a_halt_come_after_5_s_doubling_to_5_min() -> None:
    times = _probe_times(_halted(now=0.0), 0.0, 9)
    assert [later - sooner for sooner, later in zip([0.0, *times], times, strict=False)] == [
        5, 10, 20, 40, 80, 160, 300, 300, 300
    ]  # fmt: skip


def test_probes_of_an_outage_come_after_1_s_doubling_to_1_min() -> None:
    times = _probe_times(_in_outage(now=0.0), 0.0, 9)
    assert [later - sooner for sooner, later in zip([0.0, *times], times, strict=False)] == [
        1, 2, 4, 8, 16, 32, 60, 60, 60
    ]  # fmt: skip


def test_one_probe_is_under_way_at_most() -> None:
    gate = _halted()
    assert not gate.take_probe(104.9)
    assert gate.take_probe(105.0)
    assert gate.state is GateState.HALF_OPEN
    assert not gate.take_probe(1000.0)
    assert math.isinf(gate.next_probe_in_seconds(1000.0))
    assert gate.retry_in_seconds(1000.0) == 5.0


def test_a_probe_that_succeeds_opens() -> None:
    gate = _halted()
    gate.take_probe(105.0)
    assert gate.succeeded(106.0, probe=True) == GateEvent("resumed", "unauthorized", halted_seconds=6.0)
    assert gate.state is GateState.OPEN


def test_an_answer_to_an_older_request_does_not_open() -> None:
    gate = _halted()
    assert gate.succeeded(101.0, probe=False) is None
    gate.take_probe(105.0)
    assert gate.succeeded(106.0, probe=False) is None
    assert gate.state is GateState.HALF_OPEN


def test_a_probe_that_halts_for_the_same_reason_is_no_transition() -> None:
    gate = _halted()
    gate.take_probe(105.0)
    assert gate.halt(105.5, "unauthorized", sent_at=105.0, probe=True) is None
    assert gate.state is GateState.HALTED
    assert gate.next_probe_in_seconds(105.5) == 10.0


def test_a_probe_that_halts_for_another_reason_is_one() -> None:
    gate = _in_outage()
    gate.take_probe(101.0)
    assert gate.halt(101.5, "quota", sent_at=101.0, probe=True) == GateEvent(
        "halted", "quota", next_probe_in_seconds=5.0
    )
    assert (gate.reason, gate.halted_since) == ("quota", 100.0)


def test_a_probe_that_is_throttled_is_repeated_when_the_service_allows() -> None:
    gate = _halted()
    gate.take_probe(105.0)
    gate.throttled(105.0, 30.0, probe=True)
    assert gate.state is GateState.HALTED
    assert gate.next_probe_in_seconds(105.0) == 30.0
    gate.take_probe(135.0)
    gate.throttled(135.0, 1.0, probe=True)
    assert gate.next_probe_in_seconds(135.0) == 5.0


def test_a_probe_that_is_dropped_stays_due() -> None:
    gate = _halted()
    gate.take_probe(105.0)
    gate.dropped(probe=True)
    assert gate.state is GateState.HALTED
    assert gate.take_probe(105.0)


def test_words_about_the_trouble_that_has_passed_are_ignored() -> None:
    gate = _halted()
    gate.take_probe(105.0)
    gate.succeeded(106.0, probe=True)
    assert gate.halt(107.0, "unauthorized", sent_at=99.0, probe=False) is None
    for number in range(9):
        assert _fail(gate, 160.0, f"c{number}", sent_at=99.0) is None
    assert gate.is_open
    assert gate.halt(108.0, "unauthorized", sent_at=107.0, probe=False)
