"""The times of requests that were not refused, and the limit that they prove."""

import pytest

from worker.flow.sent import Sent


def _evenly(sent: Sent, start: float, end: float, per_second: float) -> None:
    for number in range(round((end - start) * per_second)):
        sent.add(start + number / per_second)


def test_requests_between_two_times_are_counted_exactly() -> None:
    sent = Sent()
    for at in (1.0, 1.01, 1.02, 2.0):
        sent.add(at)
    assert sent.count(1.01, 1.02) == 2
    assert sent.count(0.0, 0.99) == 0
    assert sent.count(2.0, 1.0) == 0


def test_refused_and_unsent_requests_do_not_count() -> None:
    sent = Sent()
    for at in (1.0, 2.0, 2.0):
        sent.add(at)
    sent.remove(2.0)
    sent.remove(5.0)  # too long ago to be known
    assert sent.count(0.0, 9.0) == 2


def test_the_log_of_requests_is_bounded_and_forgets_the_oldest() -> None:
    sent = Sent()
    _evenly(sent, 0.0, 1000.0, 100.0)
    assert 16_000 <= sent.count(0.0, 1000.0) <= 33_000
    assert sent.count(900.0, 1000.0) == 10_000


def test_the_log_of_requests_loses_its_older_half_when_it_is_full() -> None:
    sent = Sent()
    for number in range(32_768):
        sent.add(float(number))
    assert sent.count(0.0, 40_000.0) == 32_768
    sent.add(32_768.0)
    assert sent.count(0.0, 40_000.0) == sent.count(16_384.0, 32_768.0) == 16_385


def test_between_two_refusals_the_limit_is_the_number_of_successes() -> None:
    sent = Sent()
    _evenly(sent, 1.0, 11.0, 10.0)
    assert sent.per_second(0.0, 11.0) == pytest.approx(101 / 11)
    assert sent.per_second(10.5, 11.0) == pytest.approx(6 / 0.5)


def test_saved_up_requests_do_not_raise_the_limit() -> None:
    sent = Sent()
    _evenly(sent, 0.0, 20.0, 5.0)  # half of the limit: it saves up a second's worth
    _evenly(sent, 20.0, 21.0, 20.0)  # ten that came in, and ten that were saved up
    assert sent.least_limit(0.0, 21.0, saved_seconds=1.0) == pytest.approx(10.0, rel=0.05)


def test_of_one_request_just_before_half_a_request_is_known() -> None:
    sent = Sent()
    sent.add(9.9)
    assert sent.least_limit(0.0, 10.0, saved_seconds=1.0) == pytest.approx(1.5 / 1.1)


def test_without_a_request_there_is_no_least_limit() -> None:
    assert Sent().least_limit(0.0, 10.0, saved_seconds=1.0) == 0.0


def test_of_a_refused_request_each_of_the_workers_that_met_the_limit_counts_its_part() -> None:
    sent = Sent()
    _evenly(sent, 0.0, 10.0, 1.0)
    sent.workers = 4
    assert sent.per_second(0.0, 10.0) == pytest.approx((10 + 0.25) / 10.0)
