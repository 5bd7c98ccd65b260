"""The generic cell rate algorithm of the common rate."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.queue.quota import grant


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.integers(0, 40), st.floats(0.0, 2.0)),
        min_size=1,
        max_size=40,
    ),
    st.floats(1.0, 6_000.0),
)
def test_no_stretch_of_time_holds_more_than_the_rate_and_one(
    asked: list[tuple[float, int, float]], per_minute: float
) -> None:
    now, due_at = 1_700_000_000.0, 0.0
    due: list[float] = []
    for passed, requests, ahead_seconds in asked:
        now += passed
        granted, due_at = grant(due_at, now, requests, per_minute=per_minute, ahead_seconds=ahead_seconds)
        assert granted.requests <= requests
        interval = 60.0 / per_minute
        due += [now + granted.wait_seconds + number * interval for number in range(granted.requests)]
        assert all(at <= now + ahead_seconds + 1e-3 for at in due[len(due) - granted.requests :])
    for earlier, later in pairwise(due):
        assert later - earlier >= 60.0 / per_minute - 1e-3


def test_a_clock_that_was_put_back_delays_nothing_for_long() -> None:
    now = 1_700_000_000.0
    granted, due_at = grant(now + 86_400.0, now, 5, per_minute=600.0, ahead_seconds=1.0)
    assert granted.requests == 0
    assert granted.wait_seconds < 15.0
    again, _ = grant(due_at, now + granted.wait_seconds, 5, per_minute=600.0, ahead_seconds=1.0)
    assert again.requests
