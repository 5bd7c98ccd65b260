"""Dead letters that are older than they may grow: deleted in the background, not too many at once."""

import asyncio
from typing import Any

from tests.engine.virtual import Stage
from tests.engine.wrapping import WrappedQueue
from tests.queue.helpers import bury, change
from tests.virtual import in_virtual_time
from worker.queue import DeadSelection

DAY = 86_400.0


async def _bury(stage: Stage, count: int, name: str) -> None:
    for start in range(0, count, 100):
        await bury(stage.queue, *[change(f"{name}-{number}") for number in range(start, min(start + 100, count))])


@in_virtual_time
async def test_a_daemon_deletes_what_is_too_old_and_keeps_the_rest() -> None:
    stage = Stage()
    await _bury(stage, 2_500, "old")
    await asyncio.sleep(30 * DAY - 300.0)
    await _bury(stage, 300, "young")
    worker = stage.worker(drain=False, dead_retention_seconds=30 * DAY)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(240.0)
    assert worker.tallies.letters_expired == 0
    await asyncio.sleep(180.0)
    assert worker.tallies.letters_expired == 2_500
    assert {letter.completion_id.partition("-")[0] for letter in await stage.dead()} == {"young"}
    assert [event["letters"] for event in stage.events("dead.expired")] == [1_000, 1_000, 500]
    worker.stop()
    await task


@in_virtual_time
async def test_it_deletes_at_most_a_thousand_a_second() -> None:
    stage = Stage()
    await _bury(stage, 10_000, "old")
    await asyncio.sleep(2 * DAY)
    worker = stage.worker(drain=False, dead_retention_seconds=DAY)
    task = asyncio.create_task(worker.run())
    for second in range(1, 10):
        await asyncio.sleep(1.0)
        assert 10_000 - len(await stage.dead()) <= 1_000 * (second + 1)
    await asyncio.sleep(5.0)
    assert await stage.dead() == []
    worker.stop()
    await task


@in_virtual_time
async def test_without_a_retention_letters_stay_for_ever() -> None:
    stage = Stage()
    await _bury(stage, 10, "old")
    await asyncio.sleep(40 * DAY)
    worker = stage.worker(drain=False)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(180.0)
    assert len(await stage.dead()) == 10
    worker.stop()
    await task


class _Asked(WrappedQueue):
    asked = 0

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        self.asked += 1
        return await super().expire_dead(older_than_seconds, most=most)


@in_virtual_time
async def test_a_store_that_is_away_keeps_its_letters_for_longer_and_is_asked_once_a_minute() -> None:
    stage = Stage()
    await _bury(stage, 10, "old")
    await asyncio.sleep(2 * DAY)
    queue: Any = _Asked(stage.queue)
    queue.unavailable.add("expire_dead")
    worker = stage.worker(queue=queue, drain=False, dead_retention_seconds=DAY)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(600.0)
    assert len([letter async for letter in stage.queue.dead_letters(DeadSelection())]) == 10
    assert queue.asked <= 11
    queue.unavailable.clear()
    await asyncio.sleep(120.0)
    assert await stage.dead() == []
    worker.stop()
    await task
