"""Evidence from answers: which completions got through since when, and which failed in a row."""

import random

import pytest

from worker.flow.ended import ABSENT, FAILED, End, Ended
from worker.flow.evidence import ALIKE_IN_A_ROW, FAILURES_OF_EVERYBODY, Evidence

NOT_THERE = Ended(End.ABSENT, reason=ABSENT)


def _through(evidence: Evidence, completion_id: str, since: float, *, elsewhere: bool = False) -> bool:
    return evidence.others_got_through(completion_id, since, elsewhere=elsewhere)


def test_nothing_got_through_at_first() -> None:
    evidence = Evidence()
    assert not _through(evidence, "a", float("-inf"), elsewhere=True)
    assert (evidence.successes, evidence.all_failed([])) == (0, False)


def test_a_success_counts_against_completions_that_failed_before_it_started() -> None:
    evidence = Evidence()
    evidence.succeeded("a", 10.0)
    assert _through(evidence, "b", 9.9)
    assert not _through(evidence, "b", 10.0)
    assert not _through(evidence, "a", 9.9)  # a completion is no other to itself


def test_the_latest_success_of_another_completion_is_known() -> None:
    evidence = Evidence()
    for completion_id, sent_at in [("a", 10.0), ("b", 20.0), ("b", 30.0), ("b", 25.0)]:
        evidence.succeeded(completion_id, sent_at)
    assert (_through(evidence, "b", 9.0), _through(evidence, "b", 10.0)) == (True, False)
    assert (_through(evidence, "a", 29.0), _through(evidence, "a", 30.0)) == (True, False)


@pytest.mark.parametrize("seed", range(20))
def test_successes_of_others_are_known_in_any_order_of_ends(seed: int) -> None:
    dice, evidence, latest = random.Random(seed), Evidence(), dict[str, float]()
    for _ in range(60):
        completion_id, sent_at = dice.choice("abc"), float(dice.randrange(50))
        evidence.succeeded(completion_id, sent_at)
        latest[completion_id] = max(sent_at, latest.get(completion_id, -1.0))
        for asked in "abcd":
            others = max((at for each, at in latest.items() if each != asked), default=-1.0)
            for since in (others - 0.5, others, others + 0.5):
                assert _through(evidence, asked, since) is (others > since and others >= 0.0)
    assert evidence.successes == 60


def test_successes_at_other_workers_count_only_when_asked_for() -> None:
    evidence = Evidence()
    evidence.elsewhere_at = 10.0
    assert _through(evidence, "a", 9.0, elsewhere=True)
    assert not _through(evidence, "a", 10.0, elsewhere=True)
    assert not _through(evidence, "a", 9.0)


def test_five_different_completions_in_a_row_are_enough_to_halt() -> None:
    evidence = Evidence()
    for number in range(FAILURES_OF_EVERYBODY):
        for _ in range(3):  # one completion counts once
            everybody = evidence.met(0.0, f"c{number}", FAILED)
        assert everybody is (number == FAILURES_OF_EVERYBODY - 1)


def test_a_success_ends_the_row() -> None:
    evidence = Evidence()
    for number in range(4):
        evidence.met(0.0, f"c{number}", FAILED)
    evidence.succeeded("a", 0.0)
    assert not evidence.met(0.0, "c4", FAILED)
    assert list(evidence.row(End.FAILED)) == ["c4"]


@pytest.mark.parametrize(
    ("in_hand", "expected"), [(["a", "b"], True), (["a"], True), ([], True), (["a", "b", "c"], False)]
)
def test_all_pending_completions_are_enough_to_halt(in_hand: list[str], expected: bool) -> None:  # noqa: FBT001 -- what is expected
    evidence = Evidence()
    assert not evidence.all_failed(in_hand)  # none has failed
    for completion_id in "ab":
        evidence.met(0.0, completion_id, FAILED)
    assert evidence.all_failed(in_hand) is expected


def test_a_new_key_has_no_evidence() -> None:
    evidence = Evidence()
    for number in range(5):
        evidence.met(0.0, f"c{number}", FAILED)
    for completion_id in "ab":
        evidence.succeeded(completion_id, 10.0)
    evidence.met(0.0, "c", FAILED)
    evidence.forget()
    assert not _through(evidence, "c", 0.0)
    assert not evidence.all_failed([])
    assert evidence.successes == 2  # a URL that has answered is right


def test_twenty_different_completions_with_the_same_refusal_are_alike() -> None:
    evidence = Evidence()
    for number in range(ALIKE_IN_A_ROW):
        assert evidence.alike() is None
        for later in (0.0, 100.0, 200.0):  # the first time counts
            is_common = evidence.met(later + number, f"c{number}", NOT_THERE)
        assert is_common is (number == ALIKE_IN_A_ROW - 1)
    assert evidence.alike() == (0.0, NOT_THERE)
    for number in range(1_000):
        evidence.met(50.0, f"d{number}", NOT_THERE)
    assert len(evidence.row(End.ABSENT)) == ALIKE_IN_A_ROW  # it grows no further
    assert evidence.alike() == (0.0, NOT_THERE)


def test_a_refusal_with_another_message_continues_the_row() -> None:
    evidence = Evidence()
    words = [Ended(End.REJECTED, error=f"400: no c{number}") for number in range(ALIKE_IN_A_ROW)]
    for number, word in enumerate(words):
        evidence.met(float(number), f"c{number}", word)
    assert evidence.alike() == (0.0, words[-1])


def test_absences_and_rejections_are_separate_rows() -> None:
    evidence = Evidence()
    for number in range(ALIKE_IN_A_ROW):
        evidence.met(1.0, f"c{number}", NOT_THERE if number % 2 else Ended(End.REJECTED))
    assert evidence.alike() is None


def test_a_success_clears_the_row() -> None:
    evidence = Evidence()
    for number in range(ALIKE_IN_A_ROW):
        evidence.met(1.0, f"c{number}", NOT_THERE)
    evidence.succeeded("a", 2.0)
    assert evidence.alike() is None
    for number in range(ALIKE_IN_A_ROW):
        evidence.met(9.0, f"c{number}", NOT_THERE)
    assert evidence.alike() == (9.0, NOT_THERE)
