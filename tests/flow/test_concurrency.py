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
    assert sample.held_seconds == pytest.approx(9.4)


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


def _grown(configured: int, seconds: float, *, latency_seconds: float | None = None, start: float = 0.0) -> int:
    """The slots of a fully used search."""
    concurrency = Concurrency(configured, start)
    if latency_seconds is not None:
        concurrency.answered(start, latency_seconds, per_second=math.inf, in_flight=configured)
    _grow(concurrency, start, start + seconds)
    return concurrency.slots


def _grow(concurrency: Concurrency, now: float, until: float) -> float:
    """Let so many be under way as may; returns the time."""
    while now < until:
        wait_seconds = concurrency.seconds_until_growth(now, concurrency.slots)
        if math.isinf(wait_seconds):
            break
        now += wait_seconds
    return now


def test_without_answers_a_search_grows_faster_and_faster() -> None:
    sizes = [_grown(1000, seconds) for seconds in (1.0, 2.0, 4.0)]
    assert 2 * sizes[0] < sizes[1]
    assert 2 * sizes[1] < sizes[2]
    assert 250 <= sizes[2] <= 320  # 116 a second by then, and none of them answered


def test_with_fast_answers_a_search_needs_fewer_slots() -> None:
    assert _grown(1000, 4.0, latency_seconds=0.2) < 0.3 * _grown(1000, 4.0, latency_seconds=4.0)


def test_a_search_grows_from_its_own_start() -> None:
    assert _grown(1000, 2.0, start=1000.0) == _grown(1000, 2.0)


def test_the_time_until_one_more_may_run_is_told_and_then_one_may() -> None:
    concurrency = Concurrency(1000, 0.0)
    now = _grow(concurrency, 0.0, 4.0)
    slots = concurrency.slots
    wait_seconds = concurrency.seconds_until_growth(now, slots) or concurrency.seconds_until_growth(now, slots + 1)
    slots = concurrency.slots
    assert 0.0 < wait_seconds <= 0.01  # they grow by a hundred a second and more
    assert concurrency.seconds_until_growth(now + 0.9 * wait_seconds, slots) > 0.0
    assert concurrency.seconds_until_growth(now + wait_seconds, slots) == 0.0


def test_a_window_grows_while_half_of_it_is_used() -> None:
    concurrency = Concurrency(1000, 0.0)
    for in_flight, slots in [*((10, 2 + number) for number in range(9)), (4, 10), (5, 11)]:
        concurrency.answered(0.0, 0.01, per_second=1e6, in_flight=in_flight)
        assert concurrency.slots == slots


def test_a_rate_that_is_known_no_more_frees_all_slots_and_one_that_is_found_takes_them_again() -> None:
    concurrency = _opened(64, per_second=1.0, latency_seconds=0.01)
    assert concurrency.slots == 16
    for _ in range(2):
        concurrency.answered(300.0, 0.01, per_second=math.inf, in_flight=64)
        assert concurrency.slots == 64
    concurrency.answered(300.0, 0.01, per_second=1.0, in_flight=64)
    assert concurrency.slots == 16


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


@pytest.mark.parametrize(("seconds", "slots"), [(1.0, 47), (3.0, 99)])
def test_after_a_silence_a_search_grows_by_what_is_due_in_a_second(seconds: float, slots: int) -> None:
    concurrency = Concurrency(1000, 0.0)
    assert concurrency.seconds_until_growth(seconds, 1) == 0.0
    assert concurrency.slots == slots == int(1 + 1 + TUNING.ramp * seconds / math.sqrt(seconds + 1.0))
