"""The pacer: closing, decreases, growth, caps."""

import math

import pytest

from worker.flow.course import Course
from worker.flow.pacer import Pacer
from worker.flow.sent import Sent
from worker.flow.tuning import TUNING


def _refuse(pacer: Pacer, now: float, *, sent_at: float | None = None, delay_seconds: float | None = 1.0) -> None:
    pacer.refused(now, sent_at=now if sent_at is None else sent_at, delay_seconds=delay_seconds, jitter_seconds=0.1)


def _takes(pacer: Pacer, start: float, end: float) -> list[float]:
    """The times at which requests start if one always waits."""
    times, now = [], start
    while now < end:
        if pacer.take(now):
            times.append(now)
            if len(times) > 100_000:
                raise AssertionError("nothing holds it back")
        else:
            now += max(pacer.wait_seconds(now), 1e-6)
    return times


def _paced(per_second: float) -> Pacer:
    pacer = Pacer(0.0)
    pacer.begin_at(0.0, per_second)
    return pacer


def test_without_a_limit_the_rate_grows_with_the_time_in_which_it_is_used() -> None:
    pacer = Pacer(0.0)
    first, later = len(_takes(pacer, 0.0, 1.0)), len(_takes(pacer, 1.0, 2.0))
    assert first == pytest.approx(33, abs=3)
    assert later == pytest.approx(65, abs=5)
    assert pacer.limit_per_second is None
    assert math.isinf(pacer.aim_per_second)
    assert pacer.rate_per_second(2.0) == pytest.approx((first + later) / 2.0, rel=0.1)
    assert pacer.wait_seconds(2.0) <= 0.05


def test_without_a_limit_each_answer_lets_a_part_of_one_more_be_under_way() -> None:
    pacer, now = Pacer(0.0), 0.0
    for _ in range(2_000):
        while not pacer.take(now):
            now += pacer.wait_seconds(now)
        pacer.accepted(now + 0.001, now)
    assert now < 0.5
    assert pacer.per_second == pytest.approx(2_000 * 0.06 / 0.001, rel=0.5)


def test_answers_to_a_few_requests_do_not_let_many_start_later() -> None:
    pacer = Pacer(0.0)
    for second in range(100):
        for at in (second, second + 0.5):
            assert pacer.take(at)
            pacer.accepted(at + 0.001, at)
            pacer.none_under_way(at + 0.001)
    assert len(_takes(pacer, 100.0, 100.1)) < 40


@pytest.mark.parametrize(("gap_seconds", "hours"), [(0.05, 0.2), (1.0, 5.0)])
def test_a_search_does_not_grow_while_no_request_waits_for_it(gap_seconds: float, hours: float) -> None:
    pacer, now = Pacer(0.0), 0.0
    while now < hours * 3_600.0:  # a trickle
        if pacer.take(now):
            pacer.accepted(now + 0.01, now)
            pacer.none_under_way(now + 0.01)
        now += gap_seconds
    assert pacer.per_second < 2.0 / gap_seconds + 25.0
    assert len(_takes(pacer, now, now + 1.0)) < 100


def test_a_search_begins_anew_while_nothing_gets_through() -> None:
    pacer, now, refused = Pacer(0.0), 0.0, 0
    for _ in range(30):  # each refusal takes a second, and asks for twenty
        starts = _takes(pacer, now, now + 1.0)
        for at in starts:
            pacer.refused(at + 1.0, sent_at=at, delay_seconds=20.0, jitter_seconds=0.1)
        refused += len(starts)
        now = starts[-1] + 1.0
        now += pacer.closed_for_seconds(now)
    assert 30 <= refused < 30 * 40
    assert pacer.limit_per_second is None


def test_after_an_idle_spell_a_limit_is_measured_from_its_end() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 10.0)
    sent = len(_takes(pacer, 25.0, 30.0))
    _refuse(pacer, 30.0)
    assert pacer.limit_per_second == pytest.approx(sent / 5.0, rel=0.1)


def test_in_a_search_the_next_request_may_start_as_soon_as_none_is_under_way() -> None:
    pacer = Pacer(0.0)
    assert pacer.take(0.0)
    assert not pacer.take(0.001)
    pacer.none_under_way(0.002)
    assert pacer.take(0.002)
    capped = Pacer(0.0, requests_per_minute=60.0)
    assert capped.take(0.0)
    capped.none_under_way(0.002)
    assert not capped.take(0.002)


def test_after_an_idle_spell_the_search_begins_anew() -> None:
    pacer = Pacer(0.0)
    _takes(pacer, 0.0, 5.0)
    assert len(_takes(pacer, 8.0, 8.2)) < 5


def test_workers_divide_the_search() -> None:
    pacer = Pacer(0.0)
    alone = len(_takes(pacer, 0.0, 4.0))
    others = Pacer(0.0)
    others.share(4)
    assert len(_takes(others, 0.0, 4.0)) == pytest.approx(alone / 4.0, rel=0.05)


def test_of_a_limit_that_all_workers_meet_each_finds_its_part() -> None:
    pacer = Pacer(0.0)
    pacer.share(4)
    pacer.take_unpaced(0.0)
    _refuse(pacer, 1.0)
    assert pacer.limit_per_second == pytest.approx((1.0 + 0.5 / 4.0) / 2.0)


def test_an_earlier_runs_limit_starts_the_rate_a_little_below() -> None:
    pacer = _paced(50.0)
    assert pacer.rate_per_second(0.0) == pytest.approx(50.0 * (1.0 - TUNING.depth))
    assert pacer.limit_per_second == 50.0
    assert len(_takes(pacer, 0.0, 1.0)) == pytest.approx(48, abs=2)


def test_a_limit_found_long_ago_is_searched_again() -> None:
    pacer = Pacer(0.0)
    pacer.begin_at(0.0, 50.0, age_seconds=3600.0)
    _takes(pacer, 0.0, 10.0)
    assert pacer.rate_per_second(10.0) > 80.0


def test_no_request_starts_while_a_retry_after_runs() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 5.0)
    _refuse(pacer, 5.0, delay_seconds=7.0)
    assert pacer.closed_for_seconds(5.0) == pytest.approx(7.1)
    assert pacer.wait_seconds(5.0) == pytest.approx(7.1)
    assert _takes(pacer, 5.0, 20.0)[0] >= 12.1


def test_a_later_refusal_may_lengthen_the_delay_but_not_shorten_it() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 5.0)
    _refuse(pacer, 5.0, delay_seconds=7.0)
    _refuse(pacer, 5.1, sent_at=4.9, delay_seconds=1.0)
    assert pacer.closed_for_seconds(5.1) == pytest.approx(7.0)
    _refuse(pacer, 5.2, sent_at=4.9, delay_seconds=9.0)
    assert pacer.closed_for_seconds(5.2) == pytest.approx(9.1)
    assert pacer.seconds_closed(6.2) == pytest.approx(1.2)
    assert pacer.seconds_closed(60.0) == pytest.approx(9.3)


def test_refusals_of_one_epoch_decrease_the_rate_once() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 10.0)
    _refuse(pacer, 10.0)
    rate = pacer.rate_per_second(10.0)
    for _ in range(20):
        _refuse(pacer, 10.05, sent_at=9.95)
    assert pacer.rate_per_second(10.1) == rate
    _takes(pacer, 10.1, 20.0)
    _refuse(pacer, 20.0)
    assert pacer.rate_per_second(20.0) < rate


def test_a_decrease_goes_to_a_little_below_the_goodput() -> None:
    pacer = _paced(50.0)
    sent = len(_takes(pacer, 0.0, 20.0))
    _refuse(pacer, 20.0)
    assert pacer.limit_per_second == pytest.approx(sent / 20.0, rel=0.02)
    assert pacer.rate_per_second(20.0) == pytest.approx((1.0 - TUNING.depth) * sent / 20.0, rel=0.02)


def test_a_refusal_soon_after_opening_restarts_the_search() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 1.0)
    _refuse(pacer, 1.0)
    _takes(pacer, 1.0, 2.5)
    _refuse(pacer, 2.5)  # the limit of an earlier run was far too high
    limit = pacer.limit_per_second
    assert limit is not None
    assert limit < 35.0
    _takes(pacer, 2.5, 20.0)
    assert pacer.rate_per_second(20.0) > 1.5 * limit


def test_a_long_delay_is_the_rest_of_a_window() -> None:
    pacer = Pacer(0.0)
    passed = len(_takes(pacer, 0.0, 5.0))
    _refuse(pacer, 5.0, delay_seconds=55.0)
    assert pacer.limit_per_second == pytest.approx(passed / 60, rel=0.02)


def test_a_long_delay_that_never_varies_is_not_a_window() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 10.0)
    _refuse(pacer, 10.0, delay_seconds=60.0)
    assert pacer.limit_per_second == pytest.approx(480 / 70, rel=0.1)
    _takes(pacer, 10.0, 130.0)
    rate = pacer.rate_per_second(130.0)
    _refuse(pacer, 130.0, delay_seconds=60.0)
    assert pacer.limit_per_second == pytest.approx(rate, rel=0.31)


def test_what_requests_refused_together_cost_bounds_the_limit_that_is_sought() -> None:
    pacer = Pacer(0.0)
    for number in range(100):
        pacer.take_unpaced(number / 100)
    _refuse(pacer, 1.0)
    assert pacer.limit_per_second == pytest.approx(50.0, rel=0.05)
    for refused in range(2, 17):
        _refuse(pacer, 1.1, sent_at=1.0, delay_seconds=math.ceil(refused / 7.0))
    assert 7.0 <= (pacer.limit_per_second or 0.0) <= 9.0


def test_a_delay_of_a_second_and_the_rest_of_a_window_are_no_debt() -> None:
    for delay_seconds in (1.0, 30.0):
        pacer = Pacer(0.0)
        for number in range(100):
            pacer.take_unpaced(number / 100)
        _refuse(pacer, 1.0, delay_seconds=delay_seconds)
        found = pacer.limit_per_second
        _refuse(pacer, 1.1, sent_at=1.0, delay_seconds=delay_seconds)
        assert pacer.limit_per_second == found


def test_what_refused_requests_cost_does_not_lower_a_known_limit() -> None:
    pacer = _used(50.0, 30.0)
    _refuse(pacer, 30.0)
    found = pacer.limit_per_second
    _refuse(pacer, 30.1, sent_at=29.9, delay_seconds=2.0)
    assert pacer.limit_per_second == found


def test_a_refusal_that_later_requests_do_not_share_does_not_lower_the_rate() -> None:
    pacer = _paced(50.0)
    times = _takes(pacer, 0.0, 2.0)
    for sent_at in times[:-9]:
        pacer.accepted(2.0, sent_at)
    rate = pacer.rate_per_second(2.0)
    _refuse(pacer, 2.0, sent_at=times[-9])
    assert pacer.rate_per_second(2.0) < rate
    for sent_at in times[-8:]:
        pacer.accepted(2.1, sent_at)
    assert pacer.limit_per_second == 50.0
    assert rate <= pacer.rate_per_second(2.2) <= 50.0
    assert pacer.closed_for_seconds(2.2) > 0.0  # it is kept nevertheless


def test_a_refusal_that_later_requests_share_lowers_the_rate() -> None:
    pacer = _paced(50.0)
    times = _takes(pacer, 0.0, 2.0)
    for sent_at in times[:-9]:
        pacer.accepted(2.0, sent_at)
    _refuse(pacer, 2.0, sent_at=times[-9])
    _refuse(pacer, 2.0, sent_at=times[-2])
    for sent_at in times[-8:-2]:
        pacer.accepted(2.1, sent_at)
    assert pacer.limit_per_second is not None
    assert pacer.limit_per_second < 50.0


def _used(per_second: float, seconds: float) -> Pacer:
    """A pacer at a known limit; all its requests have got through so far."""
    pacer = _paced(per_second)
    for sent_at in _takes(pacer, 0.0, seconds):
        pacer.accepted(sent_at, sent_at)
    return pacer


def test_a_refusal_without_a_hint_at_an_allowed_rate_stops_nothing() -> None:
    pacer = _used(50.0, 2.0)
    assert pacer.take(2.1)
    _refuse(pacer, 2.1, delay_seconds=None)
    assert pacer.closed_for_seconds(2.1) == 0.0
    for sent_at in _takes(pacer, 2.2, 2.3):
        pacer.accepted(sent_at, sent_at)
    assert pacer.limit_per_second == 50.0


def test_the_next_refusal_without_a_hint_lowers_the_rate() -> None:
    pacer = _used(50.0, 2.0)
    for sent_at in (2.1, 2.2):
        assert pacer.take(sent_at)
        _refuse(pacer, sent_at, delay_seconds=None)
    assert pacer.closed_for_seconds(2.2) >= 1.0
    assert (pacer.limit_per_second or 50.0) < 50.0


@pytest.mark.parametrize(("per_second", "seconds"), [(2.0, 20.0), (50.0, 30.0)])
def test_a_refusal_at_a_low_rate_or_beyond_the_limit_lowers_the_rate(per_second: float, seconds: float) -> None:
    pacer = _used(per_second, seconds)
    assert pacer.take(seconds + 0.6)
    _refuse(pacer, seconds + 0.6, delay_seconds=None)
    assert pacer.closed_for_seconds(seconds + 0.6) >= 1.0


def test_another_workers_refusal_is_never_chance() -> None:
    pacer = _used(50.0, 2.0)
    pacer.others_refused(2.0, delay_seconds=0.0, jitter_seconds=0.0)
    _takes(pacer, 2.0, 5.0)
    assert pacer.take(5.1)
    _refuse(pacer, 5.1, delay_seconds=None)
    assert pacer.closed_for_seconds(5.1) >= 1.0


_DAY = 86_400.0


@pytest.mark.parametrize("paused", [False, True])
def test_a_delay_of_more_than_an_hour_is_kept_for_an_hour(paused: bool) -> None:  # noqa: FBT001 -- a parameter
    pacer = _paced(50.0)
    assert pacer.take(0.0)
    if paused:
        pacer.pause(1.0, delay_seconds=_DAY, jitter_seconds=0.0)
    else:
        pacer.refused(1.0, sent_at=0.0, delay_seconds=_DAY, jitter_seconds=0.0)
    assert pacer.closed_for_seconds(1.0) == 3600.0
    assert pacer.asked_for_seconds(1.0) == _DAY
    assert not pacer.take(3600.9)
    assert _takes(pacer, 3601.0, 3610.0) == [3601.0]  # one request tests
    assert pacer.seconds_closed(3602.0) == 3600.0
    _refuse(pacer, 3610.0, sent_at=3601.0, delay_seconds=_DAY)
    assert pacer.closed_for_seconds(3610.0) == 3600.0
    assert _takes(pacer, 7210.0, 7219.9) == [7210.0]
    assert len(_takes(pacer, 7219.9, 7230.0)) > 50  # it was not refused


def test_after_a_delay_of_less_than_an_hour_all_goes_on_at_once() -> None:
    pacer = _paced(50.0)
    assert pacer.take(0.0)
    _refuse(pacer, 1.0, sent_at=0.0, delay_seconds=3_000.0)
    assert len(_takes(pacer, 3_001.0, 3_002.0)) > 20


def test_a_pause_lowers_nothing() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 30.0)
    limit, rate = pacer.limit_per_second, pacer.rate_per_second(30.0)
    pacer.pause(30.0, delay_seconds=30.0, jitter_seconds=0.1)
    assert not pacer.take(60.0)
    assert pacer.take(60.2)
    assert pacer.limit_per_second == limit
    assert 0.95 * rate < pacer.rate_per_second(60.2) <= rate


def test_after_a_pause_a_limit_is_measured_from_its_end() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 30.0)
    pacer.pause(30.0, delay_seconds=30.0, jitter_seconds=0.0)
    sent = len(_takes(pacer, 60.0, 70.0))
    _refuse(pacer, 70.0)
    assert pacer.limit_per_second == pytest.approx(sent / 10.0, rel=0.02)


@pytest.mark.parametrize("delay_seconds", [-1.0, math.nan, math.inf])
def test_a_pause_that_makes_no_sense_is_ignored(delay_seconds: float) -> None:
    pacer = _paced(50.0)
    pacer.pause(1.0, delay_seconds=delay_seconds, jitter_seconds=0.1)
    assert pacer.closed_for_seconds(1.0) == 0.0


def test_another_workers_refusal_lowers_the_rate_to_what_this_one_had() -> None:
    pacer = _used(50.0, 10.0)
    pacer.others_refused(10.0, delay_seconds=0.0, jitter_seconds=0.1)
    first = pacer.limit_per_second
    assert first == pytest.approx(len(_takes(_paced(50.0), 0.0, 10.0)) / 10.0, rel=0.02)
    assert pacer.closed_for_seconds(10.0) == 0.0  # it asked for no delay
    assert len(_takes(pacer, 10.0, 11.0)) > 40
    pacer.others_refused(12.0, delay_seconds=0.5, jitter_seconds=0.1)  # of the same event
    assert pacer.limit_per_second == first
    assert pacer.closed_for_seconds(12.0) == pytest.approx(0.6)


def test_another_workers_refusal_says_nothing_to_one_that_sent_nothing_of_late() -> None:
    pacer = _used(50.0, 10.0)
    pacer.others_refused(20.0, delay_seconds=3.0, jitter_seconds=0.1)
    assert pacer.limit_per_second == 50.0
    assert pacer.closed_for_seconds(20.0) == pytest.approx(3.1)


def test_another_workers_refusal_lowers_even_a_rate_below_one() -> None:
    pacer = _paced(0.5)
    assert pacer.take(0.0)
    assert pacer.take(pacer.wait_seconds(0.0))
    pacer.others_refused(2.2, delay_seconds=0.0, jitter_seconds=0.0)
    assert pacer.limit_per_second != 0.5


def test_the_rate_grows_back_to_the_limit_in_20_s_and_then_beyond() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 20.0)
    assert pacer.rate_per_second(20.0) == pytest.approx(50.0, rel=0.01)
    _takes(pacer, 20.0, 40.0)
    assert pacer.rate_per_second(40.0) == pytest.approx(50.0 * (1.0 + TUNING.growth), rel=0.01)


def test_an_unused_rate_does_not_grow() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 20.0)
    for tenth in range(200, 2000):
        pacer.take(tenth / 10)
    assert pacer.rate_per_second(200.0) <= 51.0


def test_the_rate_stays_below_twice_what_was_sent() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 75.0)
    assert pacer.rate_per_second(75.0) > 90.0
    pacer.wait_seconds(80.0)
    assert pacer.rate_per_second(80.0) <= 50.0
    pacer = _paced(50.0)
    for number in range(10_000):
        pacer.take(number / 50)
    assert 95.0 < pacer.rate_per_second(200.0) <= 101.0


def test_unused_rate_is_not_made_up_for() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 20.0)
    _refuse(pacer, 20.0, delay_seconds=60.0)
    assert len(_takes(pacer, 80.0, 80.1001)) == 1


def test_without_a_hint_delays_double_until_something_is_accepted() -> None:
    pacer = _paced(50.0)
    delays, now = [], 1.0
    for _ in range(10):
        assert pacer.take(now)
        _refuse(pacer, now, delay_seconds=None)
        delays.append(pacer.closed_for_seconds(now) - 0.1)
        now += delays[-1] + 1000.0
    assert delays[0] == pytest.approx(1.0)
    assert all(2**row <= delay + 1e-6 <= 300.1 for row, delay in enumerate(delays[:9]))
    assert delays[-1] == pytest.approx(300.0)
    pacer.accepted(now, now)
    limit = pacer.limit_per_second
    assert limit is not None
    pacer.take(now)
    _refuse(pacer, now, delay_seconds=None)
    assert pacer.closed_for_seconds(now) < 0.1 + max(2.0, 3.0 / limit)  # a request that is owed takes its time


@pytest.mark.parametrize("delay_seconds", [-1.0, math.nan, math.inf])
def test_a_hint_that_makes_no_sense_is_ignored(delay_seconds: float) -> None:
    pacer = _paced(50.0)
    pacer.take(1.0)
    _refuse(pacer, 1.0, delay_seconds=delay_seconds)
    assert pacer.closed_for_seconds(1.0) == pytest.approx(1.1)


def test_a_hint_that_proves_too_short_is_lengthened() -> None:
    pacer = _paced(50.0)
    delays, now = [], 1.0
    for _ in range(5):
        pacer.take(now)
        _refuse(pacer, now, delay_seconds=0.0)
        delays.append(pacer.closed_for_seconds(now) - 0.1)
        now += 1000.0
    assert delays[:2] == pytest.approx([0, 0])
    assert all(2**row <= delay + 1e-6 < 300.0 for row, delay in enumerate(delays[2:]))


def test_after_a_slow_down_the_rate_comes_back_to_the_limit_in_a_quarter_of_an_hour() -> None:
    pacer = _paced(50.0)
    _takes(pacer, 0.0, 20.0)
    pacer.refused(20.0, sent_at=20.0, delay_seconds=1.0, jitter_seconds=0.1, slow_down=True)
    slow, limit = pacer.rate_per_second(20.0), _course(pacer).limit_per_second
    assert slow == pytest.approx(limit * (1.0 - TUNING.depth))
    _takes(pacer, 21.0, 470.0)
    assert pacer.rate_per_second(470.0) == pytest.approx(limit * (1.0 - TUNING.depth / 8.0), rel=0.001)
    _takes(pacer, 470.0, 921.0)
    assert pacer.rate_per_second(921.0) == pytest.approx(limit, rel=0.001)


@pytest.mark.parametrize("delay_seconds", [None, 1.0])
@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_slow_down_is_not_undone_by_what_gets_through(delay_seconds: float | None, in_doubt: bool) -> None:  # noqa: FBT001 -- a parameter
    pacer = _paced(50.0)
    starts = _takes(pacer, 0.0, 5.0)  # below the limit that was found: a refusal may be chance
    for at in starts[:-3]:
        pacer.accepted(at + 0.2, at)
    if in_doubt:
        pacer.refused(5.0, sent_at=starts[-3], delay_seconds=None, jitter_seconds=0.1)
    pacer.refused(5.0, sent_at=starts[-2], delay_seconds=delay_seconds, jitter_seconds=0.1, slow_down=True)
    slow = pacer.course
    for at in [starts[-1], *_takes(pacer, 5.0, 10.0)]:
        pacer.accepted(at + 0.2, at)
    assert pacer.course is slow


def test_a_cap_is_kept_over_every_span_of_time() -> None:
    pacer = Pacer(0.0, requests_per_minute=120.0)
    times = _takes(pacer, 0.0, 60.0)
    _refuse(pacer, 60.0, delay_seconds=5.0)
    times += _takes(pacer, 60.0, 120.0)
    for first in range(0, len(times), 7):
        for last in range(first, min(first + 60, len(times))):
            assert last - first + 1 <= 2.0 * (times[last] - times[first]) + 1.001
    assert len(times) >= 210
    assert pacer.aim_per_second <= 2.0


def test_the_first_refusal_ends_the_search() -> None:
    pacer = Pacer(0.0)
    for number in range(17):
        pacer.take_unpaced(0.9 + number / 1_000.0)
    _refuse(pacer, 1.0, sent_at=0.95)
    assert pacer.limit_per_second is not None
    assert pacer.limit_per_second < 17


def test_headers_cap_the_rate_before_any_refusal() -> None:
    pacer = Pacer(0.0)
    pacer.take(0.0)
    pacer.announce(0.1, 600.0, 590.0, 1.0)
    assert pacer.rate_per_second(0.1) == pytest.approx(10.0, rel=0.01)
    assert len(_takes(pacer, 0.1, 10.1)) == pytest.approx(100, abs=2)


@pytest.mark.parametrize("delay_seconds", [None, 1.0, 20.0])
def test_refusals_before_anything_got_through_set_no_rate(delay_seconds: float | None) -> None:
    pacer, now = Pacer(0.0), 0.0
    for _ in range(3):
        now += pacer.wait_seconds(now)
        assert pacer.take(now)
        pacer.refused(now + 0.1, sent_at=now, delay_seconds=delay_seconds, jitter_seconds=0.0)
        assert not pacer.take(now + 0.2)
        now += 0.2
    assert pacer.limit_per_second is None
    assert math.isinf(pacer.aim_per_second)


def test_a_refusal_of_rare_requests_sets_no_rate() -> None:
    pacer = Pacer(0.0)
    for minute in range(10):
        assert pacer.take(60.0 * minute)
        pacer.accepted(60.0 * minute + 0.1, 60.0 * minute)
    assert pacer.take(600.0)
    pacer.refused(600.1, sent_at=600.0, delay_seconds=1.0, jitter_seconds=0.0)
    assert math.isinf(pacer.aim_per_second)


@pytest.mark.parametrize("delay_seconds", [None, 1.0, 20.0])
def test_a_known_limit_that_others_use_up_for_minutes_is_found_again_in_minutes(delay_seconds: float | None) -> None:
    pacer, now = _paced(50.0), 0.0
    while now < 1_000.0 and not (now > 400.0 and pacer.rate_per_second(now) > 45.0):
        now += pacer.wait_seconds(now) + 1e-6
        if pacer.take(now):
            if 100.0 < now < 400.0:
                pacer.refused(now + 0.01, sent_at=now, delay_seconds=delay_seconds, jitter_seconds=0.1)
            else:
                pacer.accepted(now + 0.01, now)
            now += 0.01
    assert now < 1_000.0


def test_headers_of_alternating_limits_do_not_change_the_found_limit() -> None:
    pacer = _paced(8.0)
    for turn in range(3_000):
        pacer.announce(0.1, (1200.0, 600.0, 300.0)[turn % 3], 290.0, 1.0)
        assert pacer.limit_per_second == 8.0


def test_headers_that_tell_of_several_limits_by_turns_do_not_keep_the_rate_from_growing() -> None:
    pacer = _paced(8.0)
    for tenth in range(600):
        _takes(pacer, tenth / 10, (tenth + 1) / 10)
        pacer.announce((tenth + 1) / 10, (2400.0, 1200.0)[tenth % 2], 1190.0, 1.0)
    assert pacer.rate_per_second(60.0) > 9.0


def test_an_unused_start_is_given_back() -> None:
    pacer = _paced(2.0)
    assert pacer.take(0.0)
    assert not pacer.take(0.0)
    pacer.give_back(0.0)
    assert pacer.take(0.0)


def test_before_anything_got_through_delays_without_a_hint_double_to_five_minutes() -> None:
    pacer, now, delays = Pacer(0.0), 0.0, list[float]()
    for _ in range(12):
        assert pacer.take(now)
        pacer.refused(now, sent_at=now, delay_seconds=None, jitter_seconds=0.0)
        delays.append(pacer.closed_for_seconds(now))
        now += delays[-1]
    assert delays == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0])


def _seeking(per_second: float) -> Pacer:
    pacer = Pacer(0.0)
    pacer.begin_at(0.0, per_second, age_seconds=3600.0)
    return pacer


def _course(pacer: Pacer) -> Course:
    assert pacer.course is not None
    return pacer.course


def test_a_search_that_ends_within_two_seconds_is_begun_anew() -> None:
    pacer, now = _seeking(50.0), 0.0
    for _ in range(3):
        _takes(pacer, now, now + 1.0)
        _refuse(pacer, now + 1.0)
        assert _course(pacer).seeks
        now += 2.1


def _sent(times: list[float]) -> Sent:
    sent = Sent()
    for at in times:
        sent.add(at)
    return sent


def _use(
    pacer: Pacer, start: float, end: float, *, cost_seconds: float = 0.0, delay_seconds: float = 0.0
) -> list[float]:
    """Start requests as fast as they may, and let one be refused that starts at the end; returns those before it."""
    times = _takes(pacer, start, end)
    pacer.take_unpaced(end)
    _takes(pacer, end, end + cost_seconds)
    pacer.refused(end + cost_seconds, sent_at=end, delay_seconds=delay_seconds, jitter_seconds=0.0)
    return times


def _rate(pacer: Pacer, now: float) -> float:
    """The rate now, which a refusal now is about."""
    pacer.wait_seconds(now)
    return pacer.aim_per_second


def test_a_search_that_takes_two_seconds_has_found_what_got_through() -> None:
    pacer = _seeking(50.0)
    sent = _sent(_use(pacer, 0.0, 2.0))
    assert _course(pacer).seeks is False
    assert _course(pacer).limit_per_second == pytest.approx(sent.per_second(0.0, 2.0))


def test_a_search_has_found_what_lies_between_the_goodputs_with_and_without_the_delay() -> None:
    pacer = _seeking(50.0)
    _use(pacer, 0.0, 1.0, delay_seconds=1.0)
    sent = _sent(_use(pacer, 2.0, 8.0, cost_seconds=5.0))
    with_delay, without = sent.per_second(1.0, 8.0), sent.per_second(2.0, 8.0)
    least = max(with_delay, sent.least_limit(2.0, 8.0, TUNING.saved_seconds))
    course, found = _course(pacer), (least + without) / 2.0
    assert with_delay <= least < without
    assert course.seeks is False
    assert course.limit_per_second == pytest.approx(found)
    course.advance(TUNING.rest_costs * 5.0)  # what a refusal costs makes the next one later
    assert course.per_second() == pytest.approx(found)


def test_a_known_limit_is_measured_anew_from_the_latest_twenty_seconds() -> None:
    pacer = _paced(50.0)
    sent = _sent(_use(pacer, 0.0, 30.0, cost_seconds=3.0))
    course, found = _course(pacer), sent.per_second(10.0, 30.0)
    assert sent.per_second(0.0, 30.0) < found < 50.5
    assert course.seeks is False
    assert course.limit_per_second == pytest.approx(found)
    course.advance(TUNING.rest_costs * 3.0)  # what a refusal costs makes the next one later
    assert course.per_second() == pytest.approx(found)


def test_a_known_limit_is_measured_from_the_latest_refusal_on() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=1.0)
    limit = _course(pacer).limit_per_second
    sent = _sent(_use(pacer, 11.0, 15.0))
    assert _course(pacer).limit_per_second == pytest.approx(sent.per_second(10.0, 15.0))
    assert _course(pacer).limit_per_second < 0.95 * limit  # the delay counts


def test_a_refusal_soon_after_the_opening_lowers_a_known_limit_a_little() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=1.0)
    _takes(pacer, 11.0, 14.9)
    pacer.take_unpaced(14.9)
    _takes(pacer, 14.9, 18.9)
    found = TUNING.least_decrease * _rate(pacer, 18.9)
    pacer.refused(18.9, sent_at=14.9, delay_seconds=1.0, jitter_seconds=0.0)
    course = _course(pacer)
    assert course.seeks is False
    assert course.limit_per_second == pytest.approx(found)
    course.advance(TUNING.rest_costs * 4.0)
    assert course.per_second() == pytest.approx(found)


def test_a_refusal_soon_after_the_opening_by_far_too_few_requests_starts_a_search() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=1.0)
    times = [each for each in (11.1, 11.6, 12.1, 12.6, 13.1) if pacer.take(each)]
    assert len(times) == TUNING.few_requests
    pacer.take_unpaced(13.6)
    pacer.refused(13.6, sent_at=13.6, delay_seconds=1.0, jitter_seconds=0.0)
    sent = _sent(times)
    found = max(sent.per_second(10.0, 13.6), sent.least_limit(11.0, 13.6, TUNING.saved_seconds))
    assert _course(pacer).seeks
    assert _course(pacer).limit_per_second == pytest.approx(found)


def test_a_refusal_of_the_first_request_after_the_opening_starts_a_search_at_seven_tenths() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=1.0)
    rate = _rate(pacer, 11.0)
    _use(pacer, 11.0, 11.0, delay_seconds=1.0)
    assert _course(pacer).seeks
    assert _course(pacer).limit_per_second == pytest.approx(TUNING.far_off * rate)


@pytest.mark.parametrize(("first", "second", "is_habit"), [(6.0, 6.0, True), (6.0, 7.0, False), (5.0, 5.0, False)])
def test_a_delay_that_comes_twice_is_a_habit_and_makes_the_next_refusal_late(
    first: float,
    second: float,
    is_habit: bool,  # noqa: FBT001 -- a parameter
) -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=first)
    times = _takes(pacer, 10.0 + first, 26.0)
    rate = _rate(pacer, 26.0)
    _use(pacer, 26.0, 26.0, delay_seconds=second)
    course, sent = _course(pacer), _sent(times)
    if not is_habit:
        assert course.limit_per_second == pytest.approx(len(times) / (16.0 + second - first))
        return
    least = max(sent.per_second(10.0, 26.0), sent.least_limit(16.0, 26.0, TUNING.saved_seconds))
    found = min(rate, max(least, TUNING.far_off * rate))
    assert course.limit_per_second == pytest.approx(found)
    course.advance(TUNING.rest_costs * second)
    assert course.per_second() == pytest.approx(found)


@pytest.mark.parametrize(
    ("opened", "delay_seconds", "is_window"),
    [(20.0, 2.0, False), (20.0, 2.5, True), (20.0, 99.0, True), (20.0, 99.5, False)],
)
def test_a_delay_of_more_than_two_seconds_ends_a_window_of_two_minutes_at_most(
    opened: float,
    delay_seconds: float,
    is_window: bool,  # noqa: FBT001 -- a parameter
) -> None:
    pacer = _paced(50.0)
    times = _use(pacer, 0.0, opened, cost_seconds=1.0, delay_seconds=delay_seconds)
    of_window = len(times) / (opened + 1.0 + delay_seconds)
    assert (_course(pacer).limit_per_second == pytest.approx(of_window)) is is_window
    assert _course(pacer).seeks is False


@pytest.mark.parametrize(("per_second", "is_window"), [(0.19, False), (0.21, True)])
def test_a_delay_in_which_two_requests_may_start_is_no_window(
    per_second: float,
    is_window: bool,  # noqa: FBT001 -- a parameter
) -> None:
    pacer = _paced(per_second)
    times = _use(pacer, 0.0, 100.0, delay_seconds=10.0)
    of_window = len(times) / 110.0
    assert (_course(pacer).limit_per_second == pytest.approx(of_window)) is is_window


@pytest.mark.parametrize(("seconds", "is_window"), [(56.5, False), (57.5, True), (62.5, True), (63.5, False)])
def test_a_short_delay_that_ends_a_minute_is_the_rest_of_a_window(seconds: float, is_window: bool) -> None:  # noqa: FBT001 -- a parameter
    pacer = _paced(0.1)
    times = _use(pacer, 0.0, seconds - 10.0, delay_seconds=10.0)
    of_window = len(times) / seconds
    assert (_course(pacer).limit_per_second == pytest.approx(of_window)) is is_window


@pytest.mark.parametrize(("delay_seconds", "is_habit"), [(9.0, False), (15.0, True)])
def test_the_same_delay_twice_in_which_two_requests_may_start_is_no_habit(
    delay_seconds: float,
    is_habit: bool,  # noqa: FBT001 -- a parameter
) -> None:
    pacer = _paced(0.2)
    _use(pacer, 0.0, 60.0, delay_seconds=delay_seconds)
    opened_at = 60.0 + delay_seconds
    rate = _rate(pacer, opened_at)
    _use(pacer, opened_at, opened_at + 4.5, delay_seconds=delay_seconds)
    lowest = TUNING.far_off if is_habit else TUNING.least_decrease
    assert _course(pacer).limit_per_second == pytest.approx(lowest * rate, rel=0.05)


@pytest.mark.parametrize(("requests", "seeks"), [(4, 1), (5, 0)])
def test_a_window_that_lets_few_requests_through_is_sought(requests: int, seeks: int) -> None:
    pacer = _paced(50.0)
    for number in range(requests):
        assert pacer.take(number / 2)
    refused_at = requests / 2
    _use(pacer, refused_at, refused_at, delay_seconds=10.0)
    assert _course(pacer).limit_per_second == pytest.approx(requests / (refused_at + 10.0))
    assert _course(pacer).seeks == seeks


def test_a_window_ends_a_search() -> None:
    pacer = _seeking(50.0)
    times = _use(pacer, 0.0, 0.05, delay_seconds=10.0)
    assert 0 < len(times) < TUNING.few_requests
    assert _course(pacer).seeks is False


def test_the_first_limit_is_what_got_through_in_the_latest_twenty_seconds() -> None:
    pacer = Pacer(0.0)
    times = [number / 1_000 for number in range(1_000)]  # far more, but long ago
    times += [25.0 + number / 10 for number in range(100)]
    for at in times:
        pacer.take_unpaced(at)
    _use(pacer, 35.0, 35.0, delay_seconds=1.0)
    found = _sent(times).least_limit(15.0, 35.0, TUNING.saved_seconds)
    assert _course(pacer).seeks
    assert _course(pacer).limit_per_second == pytest.approx(found)
    assert 9.0 < found < 10.0


def test_a_request_sent_at_the_moment_of_a_refusal_says_nothing_new() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=1.0)
    course = _course(pacer)
    pacer.refused(10.1, sent_at=10.0, delay_seconds=1.0, jitter_seconds=0.0)
    assert _course(pacer) is course


def test_a_limit_is_measured_across_a_refusal_by_chance_that_asked_for_no_delay() -> None:
    pacer = _paced(50.0)
    times = _takes(pacer, 0.0, 10.0)
    for at in times:
        pacer.accepted(at, at)
    pacer.take_unpaced(10.0)
    pacer.refused(10.0, sent_at=10.0, delay_seconds=None, jitter_seconds=0.0)
    later = _takes(pacer, 10.0, 16.0)
    for at in later:
        pacer.accepted(16.0, at)
    assert pacer.limit_per_second == 50.0
    pacer.others_refused(16.0, delay_seconds=0.0, jitter_seconds=0.0)
    assert pacer.limit_per_second == pytest.approx(_sent(times + later).per_second(0.0, 16.0))


def test_a_limit_is_measured_from_the_end_of_the_delay_of_a_refusal_by_chance() -> None:
    pacer = _paced(50.0)
    times = _takes(pacer, 0.0, 10.0)
    for at in times[:-20]:
        pacer.accepted(at, at)
    pacer.refused(10.0, sent_at=times[-20], delay_seconds=1.0, jitter_seconds=0.0)
    for at in times[-19:]:
        pacer.accepted(10.1, at)
    assert pacer.limit_per_second == 50.0
    later = _takes(pacer, 11.0, 16.0)
    rate = _rate(pacer, 16.0)
    pacer.others_refused(16.0, delay_seconds=0.0, jitter_seconds=0.0)
    assert pacer.limit_per_second == pytest.approx(min(rate, _sent(later).per_second(11.0, 16.0)))
    assert pacer.limit_per_second > 49.9


def test_without_a_hint_a_low_limit_is_given_the_time_of_two_requests() -> None:
    pacer = _paced(0.1)
    assert pacer.take(0.0)
    assert pacer.take(11.0)
    pacer.refused(11.0, sent_at=11.0, delay_seconds=None, jitter_seconds=0.0)
    assert pacer.closed_for_seconds(11.0) == pytest.approx(TUNING.backoff_requests / 0.1)


def test_with_a_habit_the_rate_falls_to_seven_tenths_at_most() -> None:
    pacer = _paced(50.0)
    _use(pacer, 0.0, 10.0, delay_seconds=6.0)
    assert pacer.take(16.5)
    rate = _rate(pacer, 17.0)
    _use(pacer, 17.0, 17.0, delay_seconds=6.0)
    assert _course(pacer).limit_per_second == pytest.approx(TUNING.far_off * rate)


def test_at_a_low_limit_the_rate_stays_below_twice_that_of_the_latest_five_requests() -> None:
    pacer, now, times = _paced(0.25), 0.0, list[float]()
    while now < 2_250.0:
        if pacer.take(now):
            times.append(now)
        now += max(pacer.wait_seconds(now), 0.05)
        recent = sum(now - 20.0 <= at for at in times[-500:]) / 20.0
        assert _rate(pacer, now) <= max(0.25, 2.2 * recent + 0.1)
    assert _rate(pacer, now) > 0.4  # it has grown


def _refused_first(delay_seconds: float) -> Pacer:
    """A pacer whose search ends with a refusal that asks for this delay."""
    pacer = Pacer(0.0)
    for number in range(100):
        pacer.take_unpaced(number / 100)
    pacer.refused(1.0, sent_at=1.0, delay_seconds=delay_seconds, jitter_seconds=0.0)
    return pacer


def test_a_search_begins_at_what_the_service_takes_in_within_a_delay_less_a_second() -> None:
    pacer = _refused_first(1.0)
    for delay_seconds, found in ((1.5, 3 / 0.5), (2.0, 4 / 1.0), (3.0, 5 / 2.0)):
        pacer.refused(1.1, sent_at=0.99, delay_seconds=delay_seconds, jitter_seconds=0.0)
        assert _course(pacer).limit_per_second == found
        assert _course(pacer).seeks
        assert pacer.aim_per_second == pytest.approx(found * (1.0 - TUNING.seek_below))
    pacer.refused(1.1, sent_at=0.99, delay_seconds=2.0, jitter_seconds=0.0)
    assert _course(pacer).limit_per_second == 2.5  # it is not raised again


def test_a_delay_of_two_seconds_at_once_may_be_a_debt_and_a_longer_one_is_a_window() -> None:
    assert _course(_refused_first(2.0)).limit_per_second == 2 / 1.0
    assert _course(_refused_first(2.1)).limit_per_second == pytest.approx(100 / 3.1)


def test_each_batch_of_requests_refused_together_is_counted_from_one() -> None:
    pacer = _seeking(50.0)
    for start, together in ((0.0, 20), (2.0, 1)):
        _takes(pacer, start, start + 1.0)
        pacer.take_unpaced(start + 1.0)
        for _ in range(together):
            pacer.refused(start + 1.0, sent_at=start + 1.0, delay_seconds=1.0, jitter_seconds=0.0)
    assert _course(pacer).limit_per_second > 20.0
    pacer.refused(3.0, sent_at=2.9, delay_seconds=1.25, jitter_seconds=0.0)
    assert _course(pacer).limit_per_second == 3 / 0.25


def test_waiting_for_a_low_rate_is_no_idle_spell() -> None:
    pacer = _paced(0.5)
    _use(pacer, 0.0, 30.0)
    assert _course(pacer).seeks is False
    assert _course(pacer).limit_per_second == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("requests", "is_measured"), [(4, False), (5, True)])
def test_a_known_limit_is_measured_anew_from_five_requests(requests: int, is_measured: bool) -> None:  # noqa: FBT001 -- a parameter
    pacer = _paced(1.0)
    for number in range(requests):
        assert pacer.take(2.0 * number)
    refused_at = 2.0 * requests
    rate = _rate(pacer, refused_at)
    _use(pacer, refused_at, refused_at)
    found = (requests + 1) / refused_at if is_measured else TUNING.least_decrease * rate
    assert _course(pacer).limit_per_second == pytest.approx(found)


@pytest.mark.parametrize(
    ("passed", "refused_after_seconds", "share"),
    [(1, 3.9, 1.0), (1, 4.0, TUNING.least_decrease), (1, 5.0, TUNING.least_decrease), (2, 10.1, 1.0)],
)
def test_one_request_since_a_delay_proves_a_rate_only_if_it_was_just_before(
    passed: int, refused_after_seconds: float, share: float
) -> None:
    pacer = _paced(0.2)
    assert pacer.take(0.0)
    pacer.others_refused(3.0, delay_seconds=60.0, jitter_seconds=0.0)
    for number in range(passed):
        assert pacer.take(63.0 + 5.1 * number)
    rate = _rate(pacer, 63.0 + refused_after_seconds)
    pacer.take_unpaced(63.0 + refused_after_seconds)
    _refuse(pacer, 63.0 + refused_after_seconds, delay_seconds=None)
    assert _course(pacer).limit_per_second == pytest.approx(share * rate)
    assert _course(pacer).seeks is False


def test_a_delay_makes_no_room_in_a_cap() -> None:
    pacer = Pacer(0.0, requests_per_minute=60.0)
    assert pacer.take(0.0)
    pacer.pause(0.0, delay_seconds=0.1, jitter_seconds=0.0)
    assert pacer.wait_seconds(0.1) == pytest.approx(0.9)
