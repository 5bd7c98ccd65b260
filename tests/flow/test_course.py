"""The search for a limit, and the course between two refusals."""

import pytest

from worker.flow.course import Course, Search
from worker.flow.tuning import TUNING


def test_a_search_begins_with_one_a_second() -> None:
    search = Search()
    assert search.per_second() == 1.0
    search.answered(0.5)
    assert search.per_second() == pytest.approx(1.0 + TUNING.ramp_per_answer / 0.5)


def test_a_limit_that_was_found_is_kept_on_the_documented_curve() -> None:
    course = Course(100.0)
    assert course.per_second() == pytest.approx(100.0 * (1.0 - TUNING.depth))
    course.advance(10.0)
    assert course.per_second() == pytest.approx(100.0 * (1.0 - TUNING.depth * 0.5**3))
    course.advance(10.0)
    assert course.per_second() == pytest.approx(100.0)
    course.advance(0.5)
    assert course.per_second() == pytest.approx(100.0 * (1.0 + TUNING.growth * 0.025**3), rel=1e-9)
    course.advance(19.5)
    assert course.per_second() == pytest.approx(100.0 * (1.0 + TUNING.growth))
    course.advance(20.0)
    assert course.per_second() == pytest.approx(100.0 * (1.0 + 8 * TUNING.growth))


def test_at_a_low_limit_the_recovery_is_longer_and_shallower() -> None:
    course = Course(1.0)
    assert 0.98 < course.per_second() < 1.0
    course.advance(TUNING.rest_seconds * TUNING.rest_below**TUNING.rest_power)
    assert course.per_second() == pytest.approx(1.0)
    assert Course(0.001).per_second() < 0.001
    lowest = Course(0.001)
    lowest.advance(TUNING.rest_longest_seconds)
    assert lowest.per_second() == pytest.approx(0.001)


def test_with_long_delays_refusals_are_provoked_seldom() -> None:
    course = Course(10.0, cost_seconds=60.0)
    assert course.per_second() == pytest.approx(10.0 * (1.0 - TUNING.depth))
    course.advance(TUNING.rest_costs * 60.0)
    assert course.per_second() == pytest.approx(10.0)


def test_a_limit_that_is_sought_is_passed_soon() -> None:
    course = Course(10.0, seeks=True)
    assert course.per_second() == pytest.approx(9.5)
    course.advance(TUNING.doubling_seconds)
    assert course.per_second() == pytest.approx(19.0)
    slow = Course(0.1, seeks=True)
    slow.advance(TUNING.doubling_requests / 0.1)
    assert slow.per_second() == pytest.approx(0.19)
