"""The curve between two refusals."""

import pytest

from worker.flow.cubic import Cubic


def test_the_curve_is_the_documented_one() -> None:
    curve = Cubic(100.0, settled=True)
    assert curve.per_second() == pytest.approx(90.0)
    curve.advance(10.0)
    assert curve.per_second() == pytest.approx(100.0 * (1.0 - 0.1 * 0.5**3))
    curve.advance(10.0)
    assert curve.per_second() == pytest.approx(100.0)
    curve.advance(20.0)
    assert curve.per_second() == pytest.approx(110.0)
    curve.advance(20.0)
    assert curve.per_second() == pytest.approx(180.0)


def test_at_a_low_rate_the_way_back_is_longer_and_shallower() -> None:
    curve = Cubic(1.0, settled=True)
    assert 0.98 < curve.per_second() < 1.0
    curve.advance(180.0)
    assert curve.per_second() == pytest.approx(1.0)
    curve.advance(40.0)
    assert curve.per_second() == pytest.approx(1.8)


def test_a_limit_that_is_hardly_known_is_tried_sooner() -> None:
    settled, unsettled = Cubic(10.0, settled=True), Cubic(10.0, settled=False)
    for curve in (settled, unsettled):
        curve.advance(25.0)
    assert unsettled.per_second() > 1.5 * settled.per_second()


def test_a_limit_that_changed_moves_the_curve_at_once() -> None:
    curve = Cubic(10.0, settled=True)
    curve.scale(2.0)
    assert curve.per_second() == pytest.approx(20.0)
    assert curve.limit_per_second == 20.0


def test_a_set_back_keeps_the_limit_in_mind() -> None:
    curve = Cubic(10.0, settled=True).set_back(7.0)
    assert curve.limit_per_second == 10.0
    assert curve.per_second() == pytest.approx(6.3)
    curve.advance(8.0)
    assert curve.per_second() == pytest.approx(10.0)
