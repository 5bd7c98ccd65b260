"""Counting what got through, and telling a limit from it."""

import pytest

from worker.flow.goodput import Goodput
from worker.flow.meter import Meter


def test_a_meter_counts_between_two_times() -> None:
    meter = Meter()
    for tenth in range(100):
        meter.add(tenth / 10 + 0.05)
    assert meter.count(2.0, 4.0) == pytest.approx(20, abs=1)
    assert meter.count(9.9, 20.0) == 0
    assert meter.count(20.0, 10.0) == 0


def test_a_meter_forgets_after_two_minutes() -> None:
    meter = Meter()
    meter.add(1.0)
    meter.add(100.0)
    assert meter.count(0.0, 110.0) == 2
    meter.add(125.0)
    assert meter.count(0.0, 125.0) == 2
    meter.add(1.0)  # too long ago to be counted
    assert meter.count(0.0, 125.0) == 2
    assert meter.count(0.0, 10_000.0) == 0


def test_a_meter_takes_back_what_turned_out_otherwise() -> None:
    meter = Meter()
    meter.add(5.0)
    meter.add(5.0)
    meter.add(5.0, -1)
    assert meter.count(4.0, 6.0) == 1


def _sent_evenly(goodput: Goodput, start: float, end: float, per_second: float) -> None:
    for number in range(round((end - start) * per_second)):
        goodput.sent(start + (number + 0.5) / per_second)


def test_from_refusal_to_refusal_the_limit_is_what_got_through() -> None:
    goodput = Goodput(0.0)
    goodput.begin_cycle(0.0)
    _sent_evenly(goodput, 1.0, 11.0, 10.0)
    goodput.sent(11.0)
    goodput.refused(11.0, in_cycle=True)
    assert goodput.cycle(11.1, 11.0, 20.0) == pytest.approx(101 / 11)


def test_requests_whose_fate_is_open_do_not_count() -> None:
    goodput = Goodput(0.0)
    goodput.begin_cycle(0.0)
    _sent_evenly(goodput, 0.0, 10.0, 10.0)
    goodput.sent(10.05)
    goodput.refused(10.05, in_cycle=True)
    _sent_evenly(goodput, 10.1, 15.1, 10.0)  # under way while the refusal is on its way
    assert goodput.cycle(15.1, 10.05, 20.0) == pytest.approx(10.0, rel=0.03)


def test_a_search_counts_the_part_of_the_delay_in_which_a_bucket_fills() -> None:
    goodput = Goodput(0.0)
    _sent_evenly(goodput, 0.0, 0.5, 30.0)
    assert goodput.search(0.5, 0.5, 1.0) == pytest.approx(16 / 1.5)


def test_a_long_search_counts_its_last_two_seconds() -> None:
    goodput = Goodput(0.0)
    _sent_evenly(goodput, 0.0, 30.0, 1.0)
    _sent_evenly(goodput, 30.0, 32.0, 20.0)
    assert goodput.search(32.0, 32.0, 1.0) == pytest.approx(41 / 3, rel=0.1)


def test_a_long_delay_is_the_rest_of_a_window() -> None:
    goodput = Goodput(0.0)
    _sent_evenly(goodput, 0.0, 20.0, 25.0)
    assert goodput.window(20.0, 20.0, opened_at=0.0, delay_seconds=40.0) == pytest.approx(500 / 60, rel=0.02)
    assert goodput.window(20.0, 20.0, opened_at=0.0, delay_seconds=1.0) is None
    assert goodput.window(20.0, 20.0, opened_at=0.0, delay_seconds=3600.0) is None


def test_a_request_that_was_never_sent_does_not_count() -> None:
    goodput = Goodput(0.0)
    goodput.sent(1.0)
    goodput.never_sent(1.0)
    assert goodput.recent_per_second(1.0) == 0.0
    assert goodput.sent_in_cycle == 0
