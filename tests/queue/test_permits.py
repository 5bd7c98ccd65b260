"""What every backend promises about the permits of the rate that all workers share."""

import asyncio
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.queue.backends import Advance
from tests.queue.redis_server import a_place
from worker.queue import Queue, open_queue
from worker.queue.permits import Grant, grant

RATE = 600.0  # a minute: one every tenth of a second


async def take(queue: Queue, count: int, *, per_minute: float = RATE, ahead_seconds: float = 1.0) -> Grant:
    return await queue.take_permits(count, per_minute=per_minute, ahead_seconds=ahead_seconds)


async def test_blocks_follow_each_other_and_none_reaches_further_ahead_than_it_may(queue: Queue) -> None:
    first, second, third = [await take(queue, 5) for _ in range(3)]
    assert (first.permits, second.permits, third.permits) == (5, 5, 1)  # the eleventh is due just a second ahead
    assert first.wait_seconds == pytest.approx(0.0, abs=0.2)  # a clock that cannot be stopped goes on a little
    assert second.wait_seconds == pytest.approx(0.5, abs=0.2)
    assert third.wait_seconds == pytest.approx(1.0, abs=0.2)
    nothing = await take(queue, 5)
    assert nothing.permits == 0
    assert 0.0 < nothing.wait_seconds <= 0.1 + 1e-6


async def test_time_that_nobody_asked_for_is_not_made_up(queue: Queue, advance: Advance) -> None:
    await take(queue, 5)
    await advance(3_600)
    assert (await take(queue, 1_000)).permits == 11  # what is due in the second that comes, and no more


async def test_permits_that_were_asked_for_too_early_come_later(queue: Queue, advance: Advance) -> None:
    await take(queue, 1_000)
    assert (await take(queue, 1)).permits == 0
    await advance(0.5)
    assert (await take(queue, 1_000)).permits == pytest.approx(5, abs=1)


async def test_a_slow_rate_gives_one_at_a_time(queue: Queue, advance: Advance) -> None:
    assert (await take(queue, 10, per_minute=1.0)).permits == 1
    later = await take(queue, 10, per_minute=1.0)
    assert later.permits == 0
    assert later.wait_seconds == pytest.approx(59.0, abs=0.2)
    await advance(59.5)
    assert (await take(queue, 10, per_minute=1.0)).permits == 1


async def test_another_rate_holds_from_the_next_permit_on(queue: Queue) -> None:
    await take(queue, 5)
    assert (await take(queue, 1_000, per_minute=10 * RATE)).permits == pytest.approx(51, abs=2)


async def test_two_who_ask_at_once_share(queue: Queue) -> None:
    grants = await asyncio.gather(*(take(queue, 3) for _ in range(8)))
    assert sum(each.permits for each in grants) == 11


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
async def test_what_is_no_rate_is_refused(queue: Queue, rate: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        await take(queue, 1, per_minute=rate)


async def test_the_budget_is_one_for_all_that_have_the_queue_open(tmp_path: Path) -> None:
    async with a_place() as place:
        for url in (f"sqlite:///{tmp_path}/queue.db", place.url):
            async with open_queue(url) as one, open_queue(url) as other:
                assert (await take(one, 1_000)).permits == 11
                assert (await take(other, 1_000)).permits <= 1


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
    for passed, count, ahead_seconds in asked:
        now += passed
        granted, due_at = grant(due_at, now, count, per_minute=per_minute, ahead_seconds=ahead_seconds)
        assert granted.permits <= count
        interval = 60.0 / per_minute
        due += [now + granted.wait_seconds + number * interval for number in range(granted.permits)]
        assert all(at <= now + ahead_seconds + 1e-3 for at in due[len(due) - granted.permits :])
    for earlier, later in pairwise(due):
        assert later - earlier >= 60.0 / per_minute - 1e-3


def test_a_clock_that_was_put_back_stops_nobody_for_long() -> None:
    now = 1_700_000_000.0
    granted, _ = grant(now + 86_400.0, now, 5, per_minute=RATE, ahead_seconds=1.0)
    assert granted.permits == 0
    assert granted.wait_seconds < 15.0
