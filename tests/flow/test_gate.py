"""The gate: when it halts, when it probes, when it opens."""

import math
from collections.abc import Iterable, Sequence

import pytest

from worker.flow.ended import (
    ABSENT,
    ANSWERED,
    DROPPED,
    FAILED,
    FAULT,
    METADATA_HIDDEN,
    OUTAGE,
    REJECTED,
    SERVICE_MERGES,
    SUCCEEDED,
    End,
    Ended,
    Operation,
)
from worker.flow.gate import Cause, Gate, GateEvent, GateState
from worker.flow.permit import Permit

THROTTLED = Ended(End.THROTTLED)
NOT_THERE = Ended(End.ABSENT)
NOT_TAKEN = Ended(End.REJECTED, reason="400 invalid_value", error="Invalid value", status=400, request_id="r")
BAD_KEY = Ended(End.FAILED, reason="unauthorized", error="Incorrect API key", status=401, request_id="req-1")
FIVE = [f"c{number}" for number in range(5)]
MANY = [f"c{number}" for number in range(20)]


def _end(
    gate: Gate,
    now: float,
    ended: Ended,
    completion_id: str = "c",
    *,
    operation: Operation = "update",
    sent_at: float | None = None,
    probe: bool = False,
) -> GateEvent | None:
    started_at = now if sent_at is None else sent_at
    permit = Permit(completion_id, operation, started_at, lambda *_: None, is_probe=probe)
    return gate.ended(now, permit, ended)


def _all_end(
    gate: Gate, now: float, ended: Ended, completion_ids: Iterable[str], *, operation: Operation = "update"
) -> list[GateEvent | None]:
    return [_end(gate, now, ended, each, operation=operation) for each in completion_ids]


def _probe(
    gate: Gate, now: float, ended: Ended, completion_id: str = "p", *, operation: Operation = "update"
) -> GateEvent | None:
    """Make one work the probe, and end one request of it so."""
    assert gate.take_probe(now, completion_id)
    event = _end(gate, now, ended, completion_id, probe=True, operation=operation)
    gate.probe_ended(now)
    return event


def _halted(word: Ended = BAD_KEY, now: float = 100.0, *, operation: Operation = "update") -> Gate:
    gate = Gate(0.0)
    _all_end(gate, now, word, FIVE, operation=operation)
    assert not gate.is_open
    return gate


def _halted_by_few(completion_ids: Sequence[str] = ("a", "b"), now: float = 100.0) -> Gate:
    gate = Gate(0.0)
    _all_end(gate, now, FAILED, completion_ids)
    assert gate.nothing_else(now, completion_ids)
    return gate


def test_a_gate_is_open_at_first() -> None:
    gate = Gate(0.0)
    assert gate.is_open
    assert gate.state is GateState.OPEN
    assert gate.cause is None
    assert gate.next_probe_in_seconds(0.0) == 0.0
    assert not gate.take_probe(0.0, "c")
    assert not gate.wants_others
    assert not gate.is_halted_by_few
    assert not gate.has_failed("c")


@pytest.mark.parametrize("reason", [OUTAGE, "unauthorized", "forbidden", "quota", "wrong_url"])
def test_five_different_completions_that_fail_in_a_row_halt(reason: str) -> None:
    gate = Gate(0.0)
    word = Ended(End.FAILED, reason=reason, error="No", status=401, request_id="r")
    events = _all_end(gate, 1.0, word, FIVE)
    cause = Cause(reason, "No", 401, "r", "c4")
    assert events == [None] * 4 + [GateEvent("halted", cause, "update", next_probe_in_seconds=0.0)]
    assert gate.state is GateState.HALTED
    assert (gate.cause, gate.halted_seconds(3.0)) == (cause, 2.0)
    assert cause.sentence == f"{reason}: No"


def test_a_halt_is_reported_once() -> None:
    gate = _halted()
    assert _end(gate, 100.1, BAD_KEY, "d", sent_at=99.0) is None
    assert _end(gate, 100.2, Ended(End.FAILED, reason="quota"), "e", sent_at=99.0) is None
    assert gate.cause is not None
    assert gate.cause.reason == "unauthorized"


def test_failures_of_one_completion_halt_nothing() -> None:
    gate = Gate(0.0)
    for second in range(20):
        assert _end(gate, float(second), BAD_KEY, "the-bad-one") is None
    assert gate.is_open


def test_a_success_ends_the_row_of_failures() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, FAILED, FIVE[:4])
    _end(gate, 1.0, SUCCEEDED)
    assert _all_end(gate, 1.0, FAILED, ["d0", "d1", "d2", "d3"]) == [None] * 4
    assert _end(gate, 1.0, FAILED, "d4")


def test_a_success_ends_the_row_of_its_kind_of_call_only() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, FAILED, FIVE[:4], operation="update")
    _all_end(gate, 1.0, SUCCEEDED, FIVE, operation="get")
    event = _end(gate, 1.0, FAILED, "c4", operation="update")
    assert event is not None
    assert event.operation == "update"


@pytest.mark.parametrize("word", [THROTTLED, ANSWERED, DROPPED, NOT_THERE, NOT_TAKEN], ids=lambda word: word.end)
def test_an_answer_that_is_no_evidence_does_not_end_the_row(word: Ended) -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, FAILED, FIVE[:4])
    _end(gate, 1.0, word)
    assert _end(gate, 1.0, FAILED, "c4")


def test_a_completion_that_fails_while_others_get_through_does_not_halt() -> None:
    gate = Gate(0.0)
    guilty = Ended(End.FAILED, reason=OUTAGE, guilty=True)
    assert _all_end(gate, 1.0, guilty, MANY) == [None] * 20
    assert gate.nothing_else(1.0, MANY) is None


def test_failures_of_all_pending_completions_halt() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, FAILED, ["a", "b"])
    assert gate.nothing_else(1.0, ["a", "b", "c"]) is None
    event = gate.nothing_else(2.0, ["b"])
    assert event is not None
    assert (event.kind, event.cause.completion_id, event.next_probe_in_seconds) == ("halted", "b", 0.0)
    assert gate.nothing_else(3.0, ["b"]) is None  # it is halted already


def test_without_failures_an_empty_queue_does_not_halt() -> None:
    assert Gate(0.0).nothing_else(1.0, []) is None


def _probe_times(gate: Gate, now: float, probes: int) -> list[float]:
    """The times of probes that all fail for the reason of the halt."""
    cause = gate.cause
    assert cause is not None
    times = []
    for number in range(probes):
        now += gate.next_probe_in_seconds(now)
        times.append(now)
        assert _probe(gate, now, Ended(End.FAILED, reason=cause.reason), f"p{number}") is None
    return times


def _between(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in zip([0.0, *times], times, strict=False)]


def test_the_first_probe_comes_at_once_and_further_ones_after_5_s_doubling_to_5_min() -> None:
    times = _probe_times(_halted(now=0.0), 0.0, 10)
    assert _between(times) == [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_probes_of_an_outage_come_at_once_and_then_after_1_s_doubling_to_10_s() -> None:
    times = _probe_times(_halted(FAILED, now=0.0), 0.0, 8)
    assert _between(times) == [0, 1, 2, 4, 8, 10, 10, 10]


def test_at_most_one_work_is_the_probe() -> None:
    gate = _halted()
    assert gate.take_probe(100.0, "p")
    assert gate.state is GateState.HALF_OPEN
    assert not gate.take_probe(1_000.0, "q")
    assert math.isinf(gate.next_probe_in_seconds(1_000.0))


def test_no_probe_is_taken_before_it_is_due() -> None:
    gate = _halted()
    _probe(gate, 100.0, BAD_KEY)
    assert not gate.take_probe(104.9, "q")
    assert gate.take_probe(105.0, "q")


def test_a_successful_probe_opens_the_gate() -> None:
    gate = _halted()
    cause = gate.cause
    assert cause is not None
    gate.take_probe(105.0, "p")
    assert _end(gate, 106.0, SUCCEEDED, "p", probe=True) == GateEvent("resumed", cause, "update", halted_seconds=6.0)
    assert (gate.state, gate.is_open, gate.cause) == (GateState.OPEN, True, None)
    gate.probe_ended(106.0)
    assert gate.is_open


def test_a_probe_opens_the_gate_only_with_the_kind_of_call_that_halted() -> None:
    gate = _halted(operation="update")
    gate.take_probe(100.0, "p")
    assert _end(gate, 100.1, SUCCEEDED, "p", operation="get", probe=True) is None
    assert gate.state is GateState.HALF_OPEN  # its update is still to come
    assert _end(gate, 100.2, SUCCEEDED, "p", operation="update", probe=True)
    assert gate.is_open


@pytest.mark.parametrize("word", [ANSWERED, NOT_THERE, NOT_TAKEN, DROPPED], ids=lambda word: word.end)
def test_a_probe_that_is_no_evidence_leaves_another_due(word: Ended) -> None:
    gate = _halted()
    assert _probe(gate, 100.0, word) is None
    assert gate.state is GateState.HALTED
    assert gate.next_probe_in_seconds(100.0) == 0.25
    assert gate.take_probe(100.25, "q")


def test_a_probe_work_without_a_request_leaves_another_due() -> None:
    gate = _halted()
    gate.take_probe(100.0, "p")
    gate.probe_ended(107.0)
    assert (gate.state, gate.next_probe_in_seconds(107.0)) == (GateState.HALTED, 0.25)


def test_a_success_of_a_request_that_is_no_probe_does_not_open_the_gate() -> None:
    gate = _halted()
    assert _end(gate, 101.0, SUCCEEDED) is None
    gate.take_probe(105.0, "p")
    assert _end(gate, 106.0, SUCCEEDED) is None
    assert gate.state is GateState.HALF_OPEN


def test_a_probe_that_fails_for_the_same_reason_updates_the_cause_without_a_transition() -> None:
    gate = _halted()
    word = Ended(End.FAILED, reason="unauthorized", error="Expired", status=401, request_id="req-2")
    assert _probe(gate, 105.0, word) is None
    assert gate.state is GateState.HALTED
    assert gate.cause == Cause("unauthorized", "Expired", 401, "req-2", "p")
    assert gate.halted_seconds(105.0) == 5.0


def test_a_probe_that_fails_for_another_reason_is_a_transition_and_probes_begin_anew() -> None:
    gate = _halted(FAILED)
    _probe(gate, 100.0, FAILED)
    event = _probe(gate, 101.0, BAD_KEY)
    cause = Cause("unauthorized", "Incorrect API key", 401, "req-1", "p")
    assert event == GateEvent("halted", cause, "update", next_probe_in_seconds=5.0)
    assert (gate.cause, gate.halted_seconds(103.0)) == (cause, 3.0)


def test_probes_begin_anew_with_the_new_reason() -> None:
    gate = _halted()
    for number in range(5):
        _probe(gate, 1_000.0 * number + 100.0, BAD_KEY)
    _probe(gate, 9_000.0, FAILED)
    assert gate.next_probe_in_seconds(9_000.0) == 1.0


def test_a_failed_probe_counts_even_if_its_completion_failed_before() -> None:
    gate = _halted()
    _probe(gate, 100.0, Ended(End.FAILED, reason="unauthorized", guilty=True))
    assert gate.next_probe_in_seconds(100.0) == 5.0


def test_a_probe_that_is_throttled_is_repeated() -> None:
    gate = _halted()
    gate.take_probe(105.0, "p")
    _end(gate, 105.0, THROTTLED, probe=True)
    assert gate.state is GateState.HALTED
    assert gate.next_probe_in_seconds(105.0) == 0.0


def test_late_failures_of_requests_from_before_the_resume_are_ignored() -> None:
    gate = _halted()
    _probe(gate, 106.0, SUCCEEDED)
    for number in range(9):
        assert _end(gate, 160.0, FAILED, f"c{number}", sent_at=99.0) is None
    assert gate.nothing_else(161.0, []) is None
    assert gate.is_open
    assert _all_end(gate, 162.0, BAD_KEY, FIVE)[4]


def test_completions_that_failed_in_the_halt_are_known() -> None:
    gate = _halted()
    assert [gate.has_failed(each) for each in [*FIVE, "other"]] == [True] * 5 + [False]
    _probe(gate, 100.0, BAD_KEY, "other")
    assert gate.has_failed("other")


def test_after_few_failures_a_newcomer_is_the_probe_at_once() -> None:
    gate = _halted_by_few()
    _probe(gate, 100.0, FAILED, "a")
    assert gate.wants_others
    assert not gate.take_probe(100.1, "b")  # it is no newcomer, and the next probe is due in a second
    _probe(gate, 100.1, FAILED, "newcomer")
    assert not gate.take_probe(100.2, "newcomer")
    assert gate.take_probe(100.2, "another")
    assert not gate.wants_others  # one probe at a time


def test_after_five_failures_newcomers_wait_for_the_probe() -> None:
    gate = _halted_by_few(["a"])
    for completion_id in "bcde":
        assert gate.wants_others
        _probe(gate, 100.0, FAILED, completion_id)
    assert not gate.wants_others
    assert not gate.take_probe(100.1, "newcomer")


def test_a_halt_by_few_is_their_own_if_others_got_through_before() -> None:
    assert not _halted_by_few().is_halted_by_few
    gate = Gate(0.0)
    _end(gate, 1.0, SUCCEEDED, operation="get")
    _end(gate, 1.0, FAILED, "a")
    gate.nothing_else(2.0, ["a"])
    assert not gate.is_halted_by_few  # another kind of call is no evidence
    gate = Gate(0.0)
    _end(gate, 1.0, SUCCEEDED)
    _end(gate, 1.0, FAILED, "a")
    gate.nothing_else(2.0, ["a"])
    assert gate.is_halted_by_few
    for number in range(4):
        _probe(gate, 100.0 * number, FAILED, f"p{number}")
    assert not gate.is_halted_by_few  # by now they are five


@pytest.mark.parametrize("trait", [METADATA_HIDDEN, SERVICE_MERGES])
def test_evidence_of_three_completions_about_the_service_halts(trait: str) -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=trait, error="look")
    operation: Operation = "get" if trait == METADATA_HIDDEN else "update"
    for _ in range(5):
        assert _all_end(gate, 1.0, word, ["a", "b"], operation=operation) == [None, None]
    event = _end(gate, 1.0, word, "c", operation=operation)
    assert event == GateEvent("halted", Cause(trait, "look", None, None, "c"), operation, next_probe_in_seconds=0.0)
    assert [gate.has_failed(each) for each in "abcd"] == [True, True, True, False]


def test_a_completion_that_later_shows_the_wanted_map_is_no_evidence_of_merging() -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=SERVICE_MERGES)
    _all_end(gate, 1.0, word, ["a", "b"])
    _end(gate, 1.0, SUCCEEDED, "b")
    _end(gate, 1.0, SUCCEEDED, "other")
    assert _end(gate, 1.0, word, "c") is None
    assert _end(gate, 1.0, word, "d")


@pytest.mark.parametrize("word", [ANSWERED, NOT_THERE, NOT_TAKEN], ids=lambda word: word.end)
def test_after_few_failures_a_probe_judged_by_its_completion_opens_the_gate(word: Ended) -> None:
    gate = _halted_by_few()
    gate.take_probe(100.0, "p")
    assert _end(gate, 100.0, word, "p", operation="get", probe=True) is None  # not the kind of call that halted
    event = _end(gate, 100.0, word, "p", probe=True)
    assert event is not None
    assert (event.kind, gate.is_open) == ("resumed", True)


def test_a_halt_by_three_about_the_service_is_not_ended_by_one_completion() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, Ended(End.FAILED, reason=SERVICE_MERGES), "abc")
    assert _probe(gate, 2.0, NOT_THERE) is None
    assert not gate.is_open


def test_reads_that_show_the_metadata_end_a_halt_by_hidden_metadata() -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=METADATA_HIDDEN)
    _all_end(gate, 1.0, word, ["a", "b"], operation="get")
    _end(gate, 1.0, SUCCEEDED, operation="update")
    _end(gate, 1.0, SUCCEEDED, operation="get")
    assert _all_end(gate, 1.0, word, ["c", "d"], operation="get") == [None, None]
    assert _end(gate, 1.0, word, "e", operation="get")


@pytest.mark.parametrize(("word", "reason"), [(NOT_THERE, ABSENT), (NOT_TAKEN, REJECTED)], ids=["absent", "rejected"])
def test_twenty_equal_refusals_in_a_row_slow_down_and_do_not_halt(word: Ended, reason: str) -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, word, MANY[:19])
    assert not gate.is_cautious
    assert gate.alike(1.0) is None
    event = _end(gate, 5.0, word, MANY[19])
    assert event is not None
    assert (event.kind, event.reason, event.operation) == ("slowed", reason, "update")
    assert _end(gate, 5.0, word, "one more") is None  # it is reported once
    assert gate.is_cautious
    assert gate.is_open
    assert gate.alike(11.0) == (Cause(reason, word.error, word.status, word.request_id), 10.0)


def test_a_success_ends_caution() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, NOT_THERE, MANY)
    _end(gate, 2.0, SUCCEEDED, operation="get")  # another kind of call may go another way
    assert gate.is_cautious
    _end(gate, 2.0, SUCCEEDED, operation="update")
    assert not gate.is_cautious
    _all_end(gate, 3.0, NOT_TAKEN, MANY)
    _end(gate, 4.0, SUCCEEDED, operation="get")
    assert gate.is_cautious  # reads are no evidence about updates
    _end(gate, 4.0, SUCCEEDED, operation="update")
    assert not gate.is_cautious
    assert gate.alike(4.0) is None


def test_five_claims_in_a_row_that_meet_a_bug_halt() -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=FAULT, error="internal error: KeyError")
    for completion_id in ["c0", "c0", "c0", "c1", "c2", "c3"]:
        assert gate.fault(1.0, completion_id, word, is_probe=False) is None
    event = gate.fault(1.0, "c4", word, is_probe=False)
    assert event is not None
    assert event.cause == Cause(FAULT, "internal error: KeyError", None, None, "c4")


def test_a_success_ends_the_row_of_bugs() -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=FAULT)
    for completion_id in FIVE[:4]:
        gate.fault(1.0, completion_id, word, is_probe=False)
    _end(gate, 1.0, SUCCEEDED)
    assert gate.fault(1.0, "c4", word, is_probe=False) is None


def test_a_bug_during_a_halt_counts_only_if_the_probe_met_it() -> None:
    gate, word = _halted(), Ended(End.FAILED, reason=FAULT)
    gate.take_probe(100.0, "p")
    assert gate.fault(100.0, "q", word, is_probe=False) is None
    assert gate.state is GateState.HALF_OPEN
    event = gate.fault(100.0, "p", word, is_probe=True)
    assert event is not None
    assert (event.reason, gate.next_probe_in_seconds(100.0)) == (FAULT, 5.0)


def test_after_another_workers_halt_the_next_failure_for_its_reason_is_a_halt() -> None:
    gate = Gate(0.0)
    gate.told("unauthorized", halted_at=50.0)
    assert gate.is_open
    assert _end(gate, 51.0, FAILED, "a") is None
    event = _end(gate, 51.0, BAD_KEY, "b")
    assert event is not None
    assert event.reason == "unauthorized"


def test_a_success_here_ends_the_suspicion() -> None:
    gate = Gate(0.0)
    gate.told("unauthorized", halted_at=50.0)
    _end(gate, 51.0, SUCCEEDED)
    assert _end(gate, 52.0, BAD_KEY, "b") is None


def test_another_workers_resume_ends_the_suspicion_and_makes_a_probe_due() -> None:
    gate = Gate(0.0)
    gate.told("unauthorized", halted_at=50.0)
    gate.probe_now(51.0)
    assert _end(gate, 52.0, BAD_KEY, "b") is None
    gate = _halted()
    _probe(gate, 100.0, BAD_KEY)
    gate.probe_now(101.0)
    assert gate.next_probe_in_seconds(101.0) == 0.0


def test_another_workers_halt_from_before_the_last_resume_is_ignored() -> None:
    gate = _halted()
    _probe(gate, 200.0, SUCCEEDED)
    gate.told("unauthorized", halted_at=199.0)
    assert _end(gate, 201.0, BAD_KEY, "b") is None


def test_successes_at_other_workers_are_known_by_kind_of_call() -> None:
    gate = Gate(0.0)
    gate.others_got_through_elsewhere("update", 50.0)
    gate.others_got_through_elsewhere("update", 40.0)  # an older word
    assert gate.others_got_through("update", "a", 49.0, elsewhere=True)
    assert not gate.others_got_through("update", "a", 49.0, elsewhere=False)
    assert not gate.others_got_through("get", "a", 49.0, elsewhere=True)


def test_a_completion_is_no_other_to_itself() -> None:
    gate = Gate(0.0)
    _end(gate, 50.0, SUCCEEDED, "a")
    assert not gate.others_got_through("update", "a", 49.0, elsewhere=False)
    assert gate.others_got_through("update", "b", 49.0, elsewhere=False)


def test_another_workers_halt_at_the_moment_of_the_resume_counts() -> None:
    gate = Gate(1.0)
    gate.told("unauthorized", halted_at=1.0)
    assert _end(gate, 2.0, BAD_KEY, "b")


def test_the_gate_counts_successes_by_kind_of_call() -> None:
    gate = Gate(0.0)
    assert gate.got_through_seconds_ago(1.0) == {}
    _end(gate, 10.0, SUCCEEDED, operation="get", sent_at=9.0)
    _end(gate, 10.0, SUCCEEDED, operation="get", sent_at=8.0)
    assert (gate.successes("get"), gate.successes("update")) == (2, 0)
    assert gate.got_through_seconds_ago(12.25) == {"get": 3.2}


def test_a_new_key_resets_the_gate() -> None:
    gate = Gate(0.0)
    _all_end(gate, 1.0, NOT_THERE, MANY)
    _all_end(gate, 1.0, NOT_TAKEN, MANY)
    _end(gate, 1.0, SUCCEEDED, sent_at=0.5)
    _all_end(gate, 1.0, BAD_KEY, FIVE[:4])
    _all_end(gate, 1.0, NOT_THERE, MANY)
    gate.told("unauthorized", halted_at=1.0)
    gate.new_key(2.0)
    assert not gate.is_cautious
    assert not gate.others_got_through("update", "a", 0.0, elsewhere=False)
    assert _end(gate, 3.0, BAD_KEY, "c4") is None


def test_a_new_key_makes_a_probe_due_for_any_completion() -> None:
    gate = _halted()
    _probe(gate, 100.0, BAD_KEY)
    gate.new_key(101.0)
    assert gate.next_probe_in_seconds(101.0) == 0.0
    assert not any(gate.has_failed(each) for each in [*FIVE, "p"])
    assert gate.take_probe(101.0, FIVE[0])


def test_probes_that_say_nothing_come_ever_later_and_after_a_failed_one_soon_again() -> None:
    gate, now = _halted(), 100.0
    for wait_seconds in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        _probe(gate, now, ANSWERED)
        assert gate.next_probe_in_seconds(now) == wait_seconds
        now += wait_seconds
    _probe(gate, now, BAD_KEY)
    now += gate.next_probe_in_seconds(now)
    _probe(gate, now, ANSWERED)
    assert gate.next_probe_in_seconds(now) == 0.25


def test_failures_that_halted_do_not_halt_once_more() -> None:
    gate = _halted_by_few()
    _probe(gate, 100.0, ANSWERED)
    assert gate.is_open
    assert gate.nothing_else(101.0, ["a", "b"]) is None
    _end(gate, 102.0, FAILED, "a")
    assert gate.nothing_else(102.0, ["a", "b"]) is None
    assert gate.nothing_else(102.0, ["a"])


@pytest.mark.parametrize("trait", [METADATA_HIDDEN, SERVICE_MERGES])
def test_what_few_completions_show_of_the_service_is_told_and_stays_after_the_halt(trait: str) -> None:
    gate, word = Gate(0.0), Ended(End.FAILED, reason=trait, error="look", status=200, request_id="r")
    _end(gate, 1.0, FAILED, "other")
    assert gate.trait() is None
    for completion_id in "abc":
        _end(gate, 1.0, word, completion_id)
        assert gate.trait() == Cause(trait, "look", 200, "r", completion_id)
    assert not gate.is_open
