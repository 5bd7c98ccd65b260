"""Completions that fail alone while others get through: they wait, hold up no other, and die late or not at all."""

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.engine.blame import replies
from tests.engine.blame.house import House, exit_of
from tests.engine.blame.replies import Back, Reply, error, html, says
from tests.engine.virtual import Request, ids
from tests.virtual import in_virtual_time
from worker.changes import Mode
from worker.cli.exits import Exit
from worker.engine import Ending

HOUR = 3_600.0
BAD = "chatcmpl-bad"
SERVER_ERROR = error(500, "server_error")


def _for(is_bad: Callable[[str], bool], back: Back) -> Callable[[Request], Back]:
    return lambda request: back if is_bad(request.completion_id) else None


async def _stream(house: House, seconds: float, *, every_seconds: float = 60.0) -> None:
    """Other completions come and get through all the time."""
    until = house.now + seconds
    while house.now < until:
        await house.put(f"chatcmpl-good-{house.now:.0f}")
        await asyncio.sleep(every_seconds)


@pytest.mark.parametrize(
    "back", [replies.FIREWALL, SERVER_ERROR, html(502), replies.RESET, replies.BAD_KEY, Reply(200, "{}")],
    ids=["403 HTML", "500", "502", "reset", "401", "{}"],
)  # fmt: skip
@in_virtual_time
async def test_a_completion_that_fails_alone_dies_after_six_hours(back: Back) -> None:
    house = House()
    await house.put(*ids(200)[:100], BAD, *ids(200)[100:])
    house.service.trouble = says(_for(BAD.__eq__, back))
    async with house.daemon():
        await asyncio.sleep(10.0)
        assert set(house.service.stored) == set(ids(200))
        await _stream(house, 6 * HOUR - 120.0)
        assert (await house.dead(), house.left()) == ([], 1)
        assert house.counted() >= 8
        await _stream(house, 1_620.0)
    (letter,) = await house.dead()
    assert (letter.completion_id, letter.reason) == (BAD, "attempts_exhausted")
    assert letter.error is not None
    assert letter.error.startswith("refused alone: ")
    assert " others got through" in letter.error
    assert letter.attempts >= 8
    assert letter.died_at - letter.enqueued_at >= 6 * HOUR
    assert sum(request.completion_id == BAD for request in house.service.requests) < 250
    assert not house.events("worker.halted")


@in_virtual_time
async def test_hours_without_enough_counted_failures_kill_no_change() -> None:
    house = House()
    await house.put(*ids(10), BAD)
    house.service.trouble = says(_for(BAD.__eq__, SERVER_ERROR))
    async with house.daemon():
        await asyncio.sleep(12 * HOUR)  # nothing else gets through in these
        assert (house.left(), await house.dead()) == (1, [])
        assert house.counted() < 8
        house.service.trouble = lambda _: None
        assert await house.emptied(61.0) < 61.0


@in_virtual_time
async def test_a_drain_names_the_completions_that_a_firewall_blocks() -> None:
    house = House()
    await house.put(*ids(200)[:100], BAD, *ids(200)[100:])
    house.service.trouble = says(_for(BAD.__eq__, replies.FIREWALL))
    summary = await house.drain()
    assert (summary.ending, exit_of(summary)) == (Ending.STUCK, Exit.RUN_AGAIN)
    assert summary.left == {BAD: "HTTP 403 Forbidden: Blocked"} or list(summary.left) == [BAD]
    assert (summary.totals.applied, house.left(), await house.dead()) == (200, 1, [])
    assert summary.seconds < 150.0


@in_virtual_time
async def test_failing_completions_in_front_do_not_hold_up_the_others() -> None:
    house = House()
    poisons = [f"chatcmpl-poison-{number}" for number in range(20)]
    await house.put(*poisons, *ids(180))
    house.service.trouble = says(_for(set(poisons).__contains__, SERVER_ERROR))
    async with house.daemon():
        await asyncio.sleep(90.0)
        assert set(house.service.stored) == set(ids(180))
        await asyncio.sleep(HOUR)
        assert (house.left(), await house.dead()) == (20, [])


@pytest.mark.parametrize(
    "back", [error(400, "weird"), replies.NOT_THERE, SERVER_ERROR], ids=["rejected", "absent", "500"]
)
@in_virtual_time
async def test_a_thousand_failing_completions_in_front_do_not_hide_the_others_for_long(back: Reply) -> None:
    house = House()
    bad = [f"chatcmpl-bad-{number}" for number in range(1_000)]
    await house.put(*bad)
    await house.put(*ids(100))
    house.service.trouble = says(_for(frozenset(bad).__contains__, back))
    async with house.daemon():
        await _until_stored(house, 95, within_seconds=2_400.0)
        # Probes may look last where the good one is: each of the others is tried once before it.
        await _until_stored(house, 100, within_seconds=1_100 * 10.0)
        assert set(house.service.stored) == set(ids(100))
    assert {letter.completion_id for letter in await house.dead()} <= set(bad)


@pytest.mark.parametrize("later_seconds", [0.0, 60.0])
@pytest.mark.parametrize("back", [SERVER_ERROR, error(403, "blocked")], ids=["500", "403"])
@pytest.mark.parametrize("bad", [50, 150, 500])
@in_virtual_time
async def test_what_comes_last_gets_through_within_minutes_of_a_halt(
    bad: int, back: Reply, later_seconds: float
) -> None:
    house = House()
    failing = [f"chatcmpl-bad-{number}" for number in range(bad)]
    await house.put(*failing)
    house.service.trouble = says(_for(frozenset(failing).__contains__, back))
    if not later_seconds:
        await house.put(*ids(5))
    async with house.daemon():
        if later_seconds:
            await asyncio.sleep(later_seconds)
            await house.put(*ids(5))
        await _until_stored(house, 5, within_seconds=300.0)
    assert (set(house.service.stored), await house.dead()) == (set(ids(5)), [])


async def _until_stored(house: House, number: int, *, within_seconds: float) -> None:
    began_at = house.now
    while len(house.service.stored) < number:
        assert house.now - began_at < within_seconds
        await asyncio.sleep(1.0)


@pytest.mark.parametrize("mode", ["merge", "replace"])
@in_virtual_time
async def test_a_completion_that_is_always_throttled_slows_no_other(mode: Mode) -> None:
    assert await _seconds_beside(mode, replies.THROTTLED) < 1.2 * await _seconds_beside(mode, None)


async def _seconds_beside(mode: Mode, back: Back) -> float:
    house = House()
    await house.put(*ids(3_000)[:1_500], BAD, *ids(3_000)[1_500:], mode=mode)
    house.service.trouble = says(_for(BAD.__eq__, back))
    began_at = house.now
    async with house.daemon():
        while not set(ids(3_000)) <= house.service.stored.keys():
            await asyncio.sleep(0.5)
            assert house.now - began_at < 600.0
    assert (house.counted(), await house.dead()) == (0, [])
    return house.now - began_at


@in_virtual_time
async def test_a_completion_that_is_always_throttled_is_tried_less_and_less_often() -> None:
    house = House()
    await house.put(*ids(200)[:100], BAD, *ids(200)[100:])
    house.service.trouble = says(_for(BAD.__eq__, replies.THROTTLED))
    async with house.daemon():
        await _stream(house, 6 * HOUR, every_seconds=20.0)
    starts = [request.at for request in house.service.requests if request.completion_id == BAD]
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert max(waits[:6]) < 60.0
    assert min(waits[-5:]) > 600.0
    assert max(waits) < 1.3 * 900.0
    assert (house.left(), house.counted(), await house.dead()) == (1, 0, [])


@pytest.mark.parametrize("percent", [5, 10, 20])
@pytest.mark.parametrize("back", [replies.FIREWALL, SERVER_ERROR], ids=["403 HTML", "500"])
@in_virtual_time
async def test_refused_completions_neither_halt_nor_slow_the_others(back: Reply, percent: int) -> None:
    dice, house = random.Random(7), House()
    refused = {completion_id for completion_id in ids(1_000) if dice.random() < percent / 100.0}
    await house.put(*ids(1_000))
    house.service.trouble = says(_for(refused.__contains__, back))
    async with house.daemon():
        while len(house.service.stored) < 1_000 - len(refused):
            await asyncio.sleep(0.5)
            assert house.now < 40.0  # a thousand take 26 s without these
        await _stream(house, HOUR)
        assert (house.left(), await house.dead()) == (len(refused), [])
        assert house.service.count() < 1_000 + 30 * len(refused) + 100
        house.service.trouble = lambda _: None
        await house.emptied(700.0)
    assert (house.left(), await house.dead()) == (0, [])


@in_virtual_time
async def test_a_shard_that_is_away_for_hours_kills_no_change() -> None:
    house = House()
    await house.put(*ids(400))
    shard = frozenset(ids(400)[::4])
    house.service.trouble = says(
        lambda request: SERVER_ERROR if request.completion_id in shard and request.at < 5.9 * HOUR else None
    )
    async with house.daemon():
        await _stream(house, 5.8 * HOUR)
        assert (house.left(), await house.dead()) == (100, [])
        assert house.counted() >= 8
        await house.emptied(1_200.0)
    assert (house.left(), await house.dead()) == (0, [])


@in_virtual_time
async def test_a_change_that_comes_late_to_a_failing_completion_has_its_own_count() -> None:
    house = House()
    await house.put(*ids(10), BAD)
    house.service.trouble = says(_for(BAD.__eq__, SERVER_ERROR))
    async with house.daemon():
        await _stream(house, 5.5 * HOUR)
        await house.put(BAD, grade="late")
        await _stream(house, HOUR)
        (letter,) = await house.dead()
        assert letter.metadata == '{"grade":"A"}'
        assert house.left() == 1
        house.service.trouble = lambda _: None
        await house.emptied(700.0)
    assert house.service.stored[BAD] == {"grade": "late"}


@in_virtual_time
async def test_an_absent_completion_with_another_message_dies_as_not_found_and_halts_nothing() -> None:
    house = House()
    await house.put(*ids(50)[:25], BAD, *ids(50)[25:])
    house.service.trouble = says(_for(BAD.__eq__, Reply(404, '{"detail": "Not Found"}')))
    summary = await house.drain()
    assert (summary.ending, exit_of(summary)) == (Ending.DRAINED, Exit.NOT_ALL)
    assert [(letter.completion_id, letter.reason) for letter in await house.dead()] == [(BAD, "not_found")]
    assert (summary.totals.applied, house.events("worker.halted")) == (50, [])
