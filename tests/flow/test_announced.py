"""Rate-limit headers: how far they are believed."""

import math

import pytest

from worker.flow.announced import Announced

MINUTE = 500.0


def test_without_headers_nothing_is_limited() -> None:
    assert math.isinf(Announced().ceiling_per_second(0.0))


def test_a_limit_per_minute_is_a_cap() -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 490.0, 1.2)
    assert announced.ceiling_per_second(0.0) == pytest.approx(MINUTE / 60, rel=0.01)
    assert announced.ceiling_per_second(0.0) < MINUTE / 60


def test_a_limit_per_second_is_not_a_cap() -> None:
    announced = Announced()
    announced.hear(0.0, 9.0, 8.0, 0.111)
    announced.hear(0.5, 9.0, 2.0, 0.777)
    assert math.isinf(announced.ceiling_per_second(0.5))


def test_a_limit_per_day_does_not_slow() -> None:
    announced = Announced()
    announced.hear(0.0, 720_000.0, 719_000.0, 120.0)
    assert announced.ceiling_per_second(0.0) > 10_000


def test_a_remainder_that_was_never_large_is_ignored() -> None:
    announced = Announced()
    for second in range(100):
        announced.hear(float(second), MINUTE, float(second % 9), 1.0)
    assert math.isinf(announced.ceiling_per_second(100.0))


def test_little_remaining_slows_down_to_what_lasts_until_the_reset() -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, 48.0)
    announced.hear(50.0, MINUTE, 20.0, 10.0)
    assert announced.ceiling_per_second(50.0) == pytest.approx(2.0)
    assert announced.ceiling_per_second(60.5) == pytest.approx(MINUTE / 60, rel=0.01)


def test_nothing_remaining_slows_down_but_does_not_stop() -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, 48.0)
    announced.hear(50.0, MINUTE, 0.0, 10.0)
    assert announced.ceiling_per_second(50.0) == pytest.approx(MINUTE / 60 / 10)


@pytest.mark.parametrize("reset_seconds", [None, 0.0, -1.0, math.nan, math.inf])
def test_without_a_reset_there_is_neither_brake_nor_cap(reset_seconds: float | None) -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, reset_seconds)
    assert math.isinf(announced.ceiling_per_second(0.0))
    announced.hear(1.0, MINUTE, 25.0, reset_seconds)
    assert math.isinf(announced.ceiling_per_second(1.0))


@pytest.mark.parametrize("reset_seconds", [None, 0.0, -1.0, math.nan, math.inf])
def test_an_answer_without_a_reset_leaves_the_brake_of_an_earlier_one(reset_seconds: float | None) -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, 48.0)
    announced.hear(50.0, MINUTE, 20.0, 10.0)
    announced.hear(51.0, MINUTE, 20.0, reset_seconds)
    assert announced.ceiling_per_second(51.0) == pytest.approx(2.0)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_a_limit_that_makes_no_sense_is_ignored(limit: float) -> None:
    announced = Announced()
    announced.hear(0.0, limit, 1.0, 1.0)
    assert math.isinf(announced.ceiling_per_second(0.0))
    announced.hear(1.0, MINUTE, 490.0, 1.2)
    ceiling = announced.ceiling_per_second(1.0)
    announced.hear(1.0, limit, 1.0, 1.0)
    assert announced.ceiling_per_second(1.0) == ceiling


@pytest.mark.parametrize("remaining", [-1.0, 501.0, math.nan, None])
def test_a_remainder_that_makes_no_sense_is_ignored(remaining: float | None) -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, remaining, 1.0)
    assert math.isinf(announced.ceiling_per_second(0.0))


def test_a_limit_of_one_a_minute_is_believed() -> None:
    announced = Announced()
    announced.hear(0.0, 1.0, 1.0, None)  # all of it remains
    announced.hear(1.0, 1.0, 0.0, 60.0)
    assert announced.ceiling_per_second(1.0) == pytest.approx(1 / 60 / 10)
    assert announced.ceiling_per_second(61.0) == pytest.approx(1 / 60, rel=0.01)


@pytest.mark.parametrize(("remaining", "believed"), [(100.0, True), (99.0, False)])
def test_a_limit_is_believed_once_a_fifth_of_it_was_seen_to_remain(remaining: float, believed: bool) -> None:  # noqa: FBT001 -- a parameter
    announced = Announced()
    announced.hear(0.0, MINUTE, remaining, 48.0)
    assert math.isfinite(announced.ceiling_per_second(0.0)) is believed


@pytest.mark.parametrize(("reset_seconds", "is_minute"), [(10.0, True), (9.9, False)])
def test_a_reset_that_comes_twice_as_soon_as_a_minutes_would_still_shows_a_minute(
    reset_seconds: float,
    is_minute: bool,  # noqa: FBT001 -- a parameter
) -> None:
    announced = Announced()
    announced.hear(0.0, 600.0, 400.0, reset_seconds)
    assert math.isfinite(announced.ceiling_per_second(0.0)) is is_minute


def test_the_brake_begins_below_a_tenth() -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, 48.0)
    announced.hear(1.0, MINUTE, 50.0, 10.0)
    assert announced.ceiling_per_second(1.0) == pytest.approx(MINUTE / 60, rel=0.01)
    announced.hear(1.0, MINUTE, 49.0, 10.0)
    assert announced.ceiling_per_second(1.0) == pytest.approx(4.9)


def test_a_reset_in_less_than_a_second_is_one() -> None:
    announced = Announced()
    announced.hear(0.0, MINUTE, 400.0, 48.0)
    announced.hear(1.0, MINUTE, 3.0, 0.5)
    assert announced.ceiling_per_second(1.0) == pytest.approx(6.0)
