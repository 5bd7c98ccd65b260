"""Trouble that only a person can mend: a key, a scope, a project, a gateway. A drain keeps all and ends with 77."""

import asyncio
import random

import pytest

from tests.engine.blame import replies
from tests.engine.blame.house import House, exit_of
from tests.engine.blame.replies import Reply, error, says
from tests.engine.virtual import ids
from tests.virtual import in_virtual_time
from worker.changes import Mode
from worker.cli.exits import Exit
from worker.engine import Ending

STRICT = {"max_attempts": 1, "give_up_after_seconds": 0.0}


@pytest.mark.parametrize("pending", [1, 3, 50])
@in_virtual_time
async def test_a_key_that_may_read_and_not_write(pending: int) -> None:
    house = House()
    await house.put(*ids(pending), mode="merge")
    house.service.trouble = says(lambda request: replies.NO_SCOPE if request.operation == "update" else None)
    summary = await house.drain(**STRICT)
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, "unauthorized", Exit.HALTED)
    assert (house.left(), await house.dead(), house.counted()) == (pending, [], 0)
    (halt,) = house.events("worker.halted")
    assert (halt["operation"], halt["status"]) == ("update", 401)
    assert not house.events("worker.resumed")
    assert house.service.count() <= 2 * pending + 20


@pytest.mark.parametrize(
    "back", [replies.BAD_KEY, error(429, "insufficient_quota"), replies.FIREWALL], ids=["401", "quota", "403 HTML"]
)
@in_virtual_time
async def test_eight_halted_workers_make_few_requests(back: Reply) -> None:
    house = House(has_replicas=True)
    await house.put(*ids(2_000))
    house.service.trouble = says(lambda _: back)
    replicas = [asyncio.create_task(house.replica(f"replica-{n}", drain=False).run()) for n in range(8)]
    await asyncio.sleep(600.0)
    assert house.service.count() < 300
    assert (house.left(), await house.dead(), house.counted()) == (2_000, [], 0)
    for replica in replicas:
        replica.cancel()


@pytest.mark.parametrize(
    ("max_duration_seconds", "back", "ending", "code"),
    [
        (30.0, replies.BAD_KEY, Ending.HALTED, Exit.HALTED),
        (30.0, error(503, None), Ending.MAX_DURATION, Exit.RUN_AGAIN),
        (30.0, error(429, "rate_limit_exceeded", retry_after="40"), Ending.MAX_DURATION, Exit.RUN_AGAIN),
    ],
    ids=["401", "503", "429"],
)
@pytest.mark.parametrize("pending", [1, 50])
@in_virtual_time
async def test_a_run_whose_time_is_up_says_whether_waiting_would_help(
    pending: int, max_duration_seconds: float, back: Reply, ending: Ending, code: Exit
) -> None:
    house = House()
    await house.put(*ids(pending))
    house.service.trouble = says(lambda _: back)
    summary = await house.drain(max_duration_seconds=max_duration_seconds)
    assert (summary.ending, exit_of(summary)) == (ending, code)
    assert (house.left(), house.counted()) == (pending, 0)


@pytest.mark.parametrize("mode", ["merge", "replace"])
@pytest.mark.parametrize(
    ("back", "reason"),
    [
        (replies.NOT_THERE, "absent"),
        (Reply(404, '{"error": "Conversation with id \'{id}\' not found."}'), "absent"),
        (Reply(410, '{"detail": "{id} is gone"}'), "absent"),
        (replies.BODY_DROPPED, "rejected"),
        (error(400, "weird"), "rejected"),
        (error(413, None, "Too large"), "rejected"),
        (error(422, "unknown_parameter", "Unknown parameter: 'metadata'", param="metadata"), "rejected"),
    ],
    ids=["404", "404 in other words", "410", "no body", "weird", "413", "422"],
)
@in_virtual_time
async def test_a_refusal_that_a_hundred_completions_meet_kills_none(back: Reply, reason: str, mode: Mode) -> None:
    house = House()
    await house.put(*ids(100), mode=mode)
    house.service.trouble = says(lambda request: back if request.operation == "update" or reason == "absent" else None)
    summary = await house.drain(**STRICT)
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, reason, Exit.HALTED)
    assert summary.cause is not None
    assert (summary.cause.status, house.left(), await house.dead()) == (back.status, 100, [])
    assert summary.seconds < 120.0
    updates = house.service.count("update") or house.service.count()
    assert updates < 20 + 2 * 8 + summary.seconds
    house.service.trouble = lambda _: None
    assert (await house.drain()).ending is Ending.DRAINED
    assert (len(house.service.stored), await house.dead()) == (100, [])


@in_virtual_time
async def test_a_daemon_with_another_projects_key_kills_nothing_in_hours() -> None:
    house = House()
    await house.put(*ids(100))
    hours = 7_200.0
    house.service.trouble = says(lambda request: replies.NOT_THERE if request.at < hours else None)
    async with house.daemon(**STRICT):
        await asyncio.sleep(hours)
        assert (house.left(), await house.dead(), house.counted()) == (100, [], 0)
        assert await house.emptied(330.0) < 330.0
    assert not await house.dead()


@pytest.mark.parametrize("percent", [1, 5])
@pytest.mark.parametrize("mode", ["merge", "replace"])
@in_virtual_time
async def test_stray_refusals_of_a_good_key_neither_halt_nor_slow_down(mode: Mode, percent: int) -> None:
    without = await _seconds_of_a_run(mode, 0)
    assert await _seconds_of_a_run(mode, percent) < 1.1 * (1.0 + percent / 100.0) * without


async def _seconds_of_a_run(mode: Mode, percent: int) -> float:
    house, dice = House(), random.Random(3)
    await house.put(*ids(3_000), mode=mode)
    house.service.trouble = says(lambda _: replies.BAD_KEY if dice.random() < percent / 100.0 else None)
    began_at = house.now
    async with house.daemon():
        while house.left() > 60:  # but for the last ones, which wait for their second try
            await asyncio.sleep(0.5)
        took_seconds = house.now - began_at
        assert await house.emptied(60.0) < 60.0
    assert (house.events("worker.halted"), await house.dead()) == ([], [])
    return took_seconds
