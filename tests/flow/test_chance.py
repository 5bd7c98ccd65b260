"""Which refusals count as chance, and which as a limit."""

import math

import pytest

from worker.flow.chance import Chance, Doubt
from worker.flow.course import Course
from worker.flow.tuning import TUNING

_FAST = 50.0


def _after(passed: int) -> Chance:
    chance = Chance()
    for number in range(passed):
        chance.accepted(float(number))
    return chance


def _doubt(chance: Chance, at: float, *, until: float = math.inf, course: Course | None = None) -> None:
    chance.doubt(Doubt(at, until, course or Course(_FAST), 0.0))


@pytest.mark.parametrize(("passed", "expected"), [(1, False), (3, False), (50, True)])
def test_the_first_refusal_may_be_chance_after_a_few_successes(passed: int, expected: bool) -> None:  # noqa: FBT001 -- a parameter
    assert _after(passed).refused(Course(_FAST), _FAST) is expected


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_a_small_share_of_refusals_stays_chance(share: float) -> None:
    chance, course = _after(50), Course(_FAST)
    for _ in range(100):
        assert chance.refused(course, _FAST)
        for number in range(round(1 / share)):
            chance.accepted(float(number))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_larger_share_of_refusals_soon_counts_as_a_limit(share: float) -> None:
    chance, course = _after(50), Course(_FAST)
    refusals = 0
    while chance.refused(course, _FAST):
        refusals += 1
        assert refusals < 10
        for number in range(round(1 / share) - 1):
            chance.accepted(float(number))


def test_only_requests_sent_between_the_refusal_and_the_closing_settle_a_doubt() -> None:
    chance = _after(50)
    _doubt(chance, 100.0, until=101.0)
    assert chance.is_open(101.0)
    assert all(chance.accepted(at) is None for at in (99.0, 100.0, 101.5, 102.0))
    settled = [chance.accepted(101.0) for _ in range(TUNING.doubts)]
    assert settled[-1] is not None
    assert not any(settled[:-1])


def test_an_open_doubt_lapses_with_requests_sent_after_the_closing() -> None:
    chance = _after(50)
    _doubt(chance, 100.0, until=101.0)
    assert not chance.is_open(102.0)
    assert all(chance.accepted(100.5) is None for _ in range(TUNING.doubts))


def test_beyond_the_limit_a_refusal_is_chance_only_after_one_below_it_was() -> None:
    beyond = Course(_FAST)
    beyond.advance(100.0)
    chance = _after(50)
    assert not chance.refused(beyond, _FAST)
    for seeks, expected in ((True, False), (False, True)):  # while a limit is sought, none was found that could be met
        chance = _after(50)
        _doubt(chance, 100.0, course=Course(_FAST, seeks=seeks))
        for _ in range(50):
            chance.accepted(101.0)
        assert chance.refused(beyond, _FAST) is expected


def test_a_confirmed_refusal_ends_the_proven_rate() -> None:
    beyond = Course(_FAST)
    beyond.advance(100.0)
    chance = _after(50)
    _doubt(chance, 100.0, course=Course(_FAST))
    for _ in range(50):
        chance.accepted(101.0)
    while chance.refused(beyond, _FAST):
        pass
    for _ in range(50):
        chance.accepted(102.0)
    assert not chance.refused(beyond, _FAST)


def test_its_repr_shows_what_it_counts() -> None:
    assert repr(Chance()) == "<Chance [1.0 refusals, not proven]>"


def test_its_repr_shows_a_proven_rate() -> None:
    chance = _after(50)
    _doubt(chance, 100.0, course=Course(_FAST))
    for _ in range(TUNING.doubts):
        chance.accepted(101.0)
    assert repr(chance) == "<Chance [0.0 refusals, proven]>"


@pytest.mark.parametrize(("per_second", "expected"), [(TUNING.doubtful_per_second, True), (3.9, False)])
def test_at_a_low_rate_no_refusal_is_chance(per_second: float, expected: bool) -> None:  # noqa: FBT001 -- a parameter
    assert _after(50).refused(Course(_FAST), per_second) is expected


def _proven() -> Chance:
    chance = _after(50)
    _doubt(chance, 100.0, course=Course(_FAST))
    for _ in range(50):
        chance.accepted(101.0)
    return chance


def test_a_proven_rate_allows_a_refusal_more() -> None:
    for chance, expected in ((_after(50), [True, False]), (_proven(), [True, True, False])):
        assert [chance.refused(Course(_FAST), _FAST) for _ in expected] == expected


def test_a_rate_stays_proven_through_doubts_about_searches() -> None:
    chance = _proven()
    _doubt(chance, 200.0, course=Course(_FAST, seeks=True))
    for _ in range(TUNING.doubts):
        chance.accepted(201.0)
    assert repr(chance) == "<Chance [0.0 refusals, proven]>"
