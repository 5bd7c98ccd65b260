"""Dead letters older than the retention: deleted in the background, not too many at once."""

import asyncio
from typing import Any

import pytest

from tests.engine.virtual import Stage
from tests.engine.wrapping import WrappedQueue
from tests.queue.helpers import bury, change
from tests.virtual import in_virtual_time
from worker.changes import MetadataChange
from worker.queue import DeadSelection
from worker.queue.memory import MemoryQueue

DAY = 86_400.0


async def _bury(stage: Stage, count: int, name: str) -> None:
    for start in range(0, count, 100):
        await bury(stage.queue, *[change(f"{name}-{number}") for number in range(start, min(start + 100, count))])


@in_virtual_time
async def test_a_daemon_deletes_dead_letters_that_are_too_old_and_keeps_the_rest() -> None:
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
async def test_at_most_a_thousand_dead_letters_are_deleted_a_second() -> None:
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


@in_virtual_time
@pytest.mark.parametrize("ahead", [1, 1_000, 4_500])
async def test_letters_dated_ahead_by_a_clock_that_was_put_back_keep_no_others(
    monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr("worker.queue.base._STRETCHES_BEYOND", 2)  # so that it takes several looks
    stage = Stage()
    off_seconds = 400 * DAY
    stage.queue = queue = MemoryQueue(clock=lambda: stage.clock.unix() + off_seconds)
    await _bury(stage, ahead, "ahead")
    off_seconds = 0.0
    await _bury(stage, 50, "old")
    await asyncio.sleep(2 * DAY)
    worker = stage.worker(queue=queue, drain=False, dead_retention_seconds=DAY)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(300.0)
    assert worker.tallies.letters_expired == 50
    assert len(await stage.dead()) == ahead
    worker.stop()
    await task


class _Forgetting(WrappedQueue):
    """Counts the calls of `forget`."""

    def __init__(self, queue: Any) -> None:
        super().__init__(queue)
        self.forgotten: list[tuple[float, int]] = []

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        forgotten = await super().forget(older_than_seconds, most=most)
        self.forgotten.append((older_than_seconds, forgotten))
        return forgotten


@in_virtual_time
@pytest.mark.parametrize("drain", [False, True])
async def test_applied_changes_are_remembered_for_keep_seconds(*, drain: bool) -> None:
    stage = Stage()
    named = [MetadataChange(f"c-{number}", {"a": "b"}, "replace", f"id-{number}") for number in range(2_500)]
    await stage.queue.put(named, batch="b")
    await stage.drain()
    await asyncio.sleep(2 * DAY)
    queue: Any = _Forgetting(stage.queue)
    await stage.put("another")
    worker = stage.worker(queue=queue, drain=drain, keep_seconds=DAY)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(240.0)
    assert sum(count for _, count in queue.forgotten) == 2_501 if not drain else queue.forgotten
    assert max(count for _, count in queue.forgotten) <= 1_001
    if not drain:
        assert (await stage.queue.put(named)).added == 2_500
        assert await stage.queue.batches() == []
        assert len(queue.forgotten) <= 3 + 5
    worker.stop()
    await task


@in_virtual_time
async def test_without_keep_seconds_finished_batches_are_kept_for_an_hour() -> None:
    stage = Stage()
    queue: Any = _Forgetting(stage.queue)
    await stage.queue.put([MetadataChange("c-1", {"a": "b"}, "replace", "mine")], batch="b")
    worker = stage.worker(queue=queue, drain=False, keep_seconds=0.0)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(3_000.0)
    assert [batch.name for batch in await stage.queue.batches()] == ["b"]
    assert (await stage.queue.put([MetadataChange("c-1", {"a": "b"}, "replace", "mine")])).added == 1
    await asyncio.sleep(3_800.0)
    assert await stage.queue.batches() == []
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


@in_virtual_time
@pytest.mark.parametrize(("after_seconds", "is_kept"), [(30.0, True), (180.0, False)])
async def test_the_metadata_that_was_confirmed_is_deleted_after_the_read_lag(
    after_seconds: float, *, is_kept: bool
) -> None:
    stage = Stage()
    await stage.put("c-1")
    worker = stage.worker(drain=False, read_lag_seconds=60.0)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(after_seconds)
    worker.stop()
    await task
    await stage.queue.put([change("c-1")])
    [claimed] = await stage.queue.claim(1, lease_seconds=60.0, owner="another", confirmed_seconds=DAY)
    assert (claimed.confirmed is not None) is is_kept
