"""Concurrency: the cap that follows rate and latency, and the slow start."""

import math

import pytest

from worker.flow.concurrency import Concurrency, LatencySample
from worker.flow.tuning import TUNING


def _opened(configured: int, *, per_second: float, latency_seconds: float) -> Concurrency:
    """Concurrency past its slow start."""
    concurrency = Concurrency(configured, 0.0)
    for second in range(1, 200):
        concurrency.answered(float(second), latency_seconds, per_second=per_second, in_flight=configured)
    return concurrency


def test_the_sample_knows_its_95th_percentile() -> None:
    sample = LatencySample()
    assert sample.held_seconds is None
    for tenth in range(1, 101):
        sample.add(tenth / 10)
    for _ in range(28):
        sample.add(1.0)
    assert sample.held_seconds == pytest.approx(9.4, abs=0.5)


def test_the_sample_is_bounded_and_forgets_old_latencies() -> None:
    sample = LatencySample()
    for _ in range(1000):
        sample.add(9.0)
    for _ in range(128 + 15):
        sample.add(1.0)
    assert sample.held_seconds == 1.0


def test_a_few_requests_that_hang_are_part_of_the_sample() -> None:
    sample = LatencySample()
    for number in range(128):
        sample.add(60.0 if number % 64 == 0 else 0.1)
    assert sample.held_seconds == pytest.approx((2 * 60 + 126 * 0.1) / 128)


def test_slots_follow_rate_and_latency() -> None:
    concurrency = _opened(500, per_second=8.33, latency_seconds=5.8)
    assert concurrency.slots == math.ceil(8.33 * 5.8 * 2)


def test_slots_never_exceed_what_is_configured() -> None:
    assert _opened(20, per_second=100.0, latency_seconds=5.0).slots == 20
    assert _opened(20, per_second=math.inf, latency_seconds=5.0).slots == 20


def test_a_low_rate_keeps_slots_for_requests_that_hang() -> None:
    assert _opened(64, per_second=1.0, latency_seconds=0.01).slots == 16


def test_a_slow_start_doubles_every_round_trip_once_a_limit_is_known() -> None:
    concurrency = Concurrency(1000, 0.0)
    sizes = []
    for _ in range(6):
        sizes.append(concurrency.slots)
        for _ in range(sizes[-1]):
            concurrency.answered(0.0, 0.01, per_second=1e6, in_flight=sizes[-1])
    assert sizes == [1, 2, 4, 8, 16, 32]


def test_a_search_grows_by_a_part_of_each_answer() -> None:
    concurrency = Concurrency(1000, 0.0)
    for _ in range(320):
        concurrency.answered(0.0, 0.01, per_second=math.inf, in_flight=1000)
    assert concurrency.slots == pytest.approx(1 + 320 * TUNING.ramp_per_answer, abs=1)


def _grown(configured: int, until: float, *, latency_seconds: float | None = None) -> int:
    """The slots of a fully used search."""
    concurrency = Concurrency(configured, 0.0)
    now = 0.0
    if latency_seconds is not None:
        concurrency.answered(0.0, latency_seconds, per_second=math.inf, in_flight=configured)
    while now < until:
        wait_seconds = concurrency.seconds_until_growth(now, concurrency.slots)
        if math.isinf(wait_seconds):
            break
        now += wait_seconds
    return concurrency.slots


def test_without_answers_a_search_grows_faster_and_faster() -> None:
    sizes = [_grown(1000, seconds) for seconds in (1.0, 2.0, 4.0)]
    assert 2 * sizes[0] < sizes[1]
    assert 2 * sizes[1] < sizes[2]
    assert 250 <= sizes[2] <= 320  # 116 a second by then, and none of them answered


def test_with_fast_answers_a_search_needs_fewer_slots() -> None:
    assert _grown(1000, 4.0, latency_seconds=0.2) < 0.3 * _grown(1000, 4.0, latency_seconds=4.0)


def test_a_search_stops_at_what_is_configured() -> None:
    assert _grown(64, 60.0) == 64


def test_at_the_configured_concurrency_a_search_waits_for_answers() -> None:
    concurrency = _opened(20, per_second=100.0, latency_seconds=5.0)
    assert concurrency.seconds_until_growth(300.0, 19) == 0.0
    assert math.isinf(concurrency.seconds_until_growth(300.0, 20))


def test_an_unused_window_does_not_grow() -> None:
    concurrency = Concurrency(64, 0.0)
    for second in range(100):
        concurrency.answered(float(second), 0.1, per_second=math.inf, in_flight=1)
    assert concurrency.slots <= 8


def test_less_than_one_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Concurrency(0, 0.0)
