"""Concurrency: the cap that follows rate and latency."""

import math

import pytest

from worker.flow.concurrency import Concurrency


def _after(configured: int, latencies: list[float], *, per_second: float) -> int:
    """The slots after requests that held theirs for so long."""
    concurrency = Concurrency(configured)
    for seconds in latencies:
        concurrency.ended(seconds, per_second=per_second)
    return concurrency.slots


def test_at_first_all_may_run_that_are_configured() -> None:
    assert Concurrency(500).slots == 500


def test_slots_are_twice_what_rate_and_latency_need() -> None:
    assert _after(500, [5.8] * 3, per_second=8.33) == math.ceil(8.33 * 5.8 * 2)
    assert _after(500, [4.0, 6.0], per_second=10.0) == 100


def test_slots_never_exceed_what_is_configured() -> None:
    assert _after(20, [5.0], per_second=100.0) == 20
    assert _after(20, [5.0], per_second=math.inf) == 20
    assert _after(8, [0.01], per_second=1.0) == 8


def test_a_low_rate_keeps_slots_for_requests_that_hang() -> None:
    assert _after(64, [0.01], per_second=1.0) == 16


def test_old_latencies_are_forgotten() -> None:
    assert _after(1_000, [9.0] * 100 + [1.0] * 500, per_second=50.0) == pytest.approx(100, abs=2)


def test_of_latencies_beyond_the_64th_each_weighs_a_64th() -> None:
    assert _after(1_000, [0.0] * 64 + [6.4], per_second=1_000.0) == 2 * 1_000 * 0.1


def test_less_than_one_request_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="max_concurrency must be at least 1, not 0"):
        Concurrency(0)
