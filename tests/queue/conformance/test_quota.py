"""The quota of the rate that all workers share, on every store."""

import asyncio
import math
import random
from pathlib import Path

import pytest

from tests.queue.conformance.backends import START, Advance
from tests.queue.stores import STORES
from worker.queue import Grant, Store, open_queue
from worker.queue.quota import grant

RATE = 600.0  # a minute: one every tenth of a second


async def take(queue: Store, requests: int, *, per_minute: float = RATE, ahead_seconds: float = 1.0) -> Grant:
    return await queue.take_quota(requests, per_minute=per_minute, ahead_seconds=ahead_seconds)


async def test_blocks_follow_each_other_and_none_reaches_further_ahead_than_it_may(queue: Store) -> None:
    first, second, third = [await take(queue, 5) for _ in range(3)]
    assert (first.requests, second.requests, third.requests) == (5, 5, 1)  # the eleventh is due just a second ahead
    assert first.wait_seconds == pytest.approx(0.0, abs=0.2)  # a clock that cannot be stopped moves on a little
    assert second.wait_seconds == pytest.approx(0.5, abs=0.2)
    assert third.wait_seconds == pytest.approx(1.0, abs=0.2)
    nothing = await take(queue, 5)
    assert nothing.requests == 0
    assert 0.0 < nothing.wait_seconds <= 0.1 + 1e-6


async def test_unused_quota_is_not_made_up(queue: Store, advance: Advance) -> None:
    await take(queue, 5)
    await advance(3_600)
    assert (await take(queue, 1_000)).requests == 11  # the requests of the coming second, and no more


async def test_what_was_asked_for_too_early_comes_later(queue: Store, advance: Advance) -> None:
    await take(queue, 1_000)
    assert (await take(queue, 1)).requests == 0
    await advance(0.5)
    assert (await take(queue, 1_000)).requests == pytest.approx(5, abs=1)


async def test_a_slow_rate_gives_one_at_a_time(queue: Store, advance: Advance) -> None:
    assert (await take(queue, 10, per_minute=1.0)).requests == 1
    later = await take(queue, 10, per_minute=1.0)
    assert later.requests == 0
    assert later.wait_seconds == pytest.approx(59.0, abs=0.2)
    await advance(59.5)
    assert (await take(queue, 10, per_minute=1.0)).requests == 1


async def test_another_rate_holds_from_the_next_request_on(queue: Store) -> None:
    await take(queue, 5)
    assert (await take(queue, 1_000, per_minute=10 * RATE)).requests == pytest.approx(51, abs=2)


async def test_after_the_clock_was_put_back_the_quota_is_granted_again(queue: Store, advance: Advance) -> None:
    await take(queue, 1_000)
    await advance(-86_400.0)
    asked_again = await take(queue, 5)
    await advance(asked_again.wait_seconds)

    assert (await take(queue, 5)).requests > 0
    assert asked_again.wait_seconds < 15.0


async def test_two_who_ask_at_once_share(queue: Store, advance: Advance) -> None:
    for _ in range(20):  # on a server, one may be done before the next begins
        grants = await asyncio.gather(*(take(queue, 3) for _ in range(8)))
        assert sum(each.requests for each in grants) == 11
        await advance(60.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
async def test_what_is_no_rate_is_refused(queue: Store, rate: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        await take(queue, 1, per_minute=rate)


@pytest.mark.parametrize("store", sorted(STORES))
async def test_the_quota_is_one_for_all_that_have_the_queue_open(store: str, tmp_path: Path) -> None:
    async with STORES[store](tmp_path) as url, open_queue(url) as one, open_queue(url) as other:
        assert (await take(one, 1_000)).requests == 11
        assert (await take(other, 1_000)).requests <= 1


@pytest.mark.parametrize("seed", range(3))
async def test_every_store_grants_what_the_arithmetic_says(queue: Store, advance: Advance, seed: int) -> None:
    dice = random.Random(seed)
    now, due_at = START, 0.0
    for _ in range(30):
        asked, per_minute = dice.randrange(1, 40), dice.choice([1.0, 60.0, RATE])
        ahead_seconds = dice.choice([0.0, 0.25, 1.0])
        expected, due_at = grant(due_at, now, asked, per_minute=per_minute, ahead_seconds=ahead_seconds)
        granted = await take(queue, asked, per_minute=per_minute, ahead_seconds=ahead_seconds)
        assert granted.requests == expected.requests
        assert granted.wait_seconds == pytest.approx(expected.wait_seconds, abs=1e-3)
        seconds = dice.choice([0.0, 0.5, 3.0, 90.0])
        await advance(seconds)
        now += seconds
