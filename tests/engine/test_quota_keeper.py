"""One worker's calls for the shared quota, and their times."""

import asyncio

import pytest

from tests.engine.parts import flow, now, running
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.engine.quota import QuotaKeeper
from worker.flow import SUCCEEDED, Flow
from worker.queue import Grant, QueueMisnamed, QueueUnavailable
from worker.queue.memory import MemoryQueue


class _Permits(WrappedQueue):
    """Keeps when permits were asked for, and how many."""

    def __init__(self) -> None:
        super().__init__(MemoryQueue(clock=now))
        self.asked: list[tuple[float, int]] = []
        self.error: Exception | None = None
        self.takes_seconds = 0.0

    async def take_quota(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        self.asked.append((now(), count))
        await asyncio.sleep(self.takes_seconds)
        if self.error is not None:
            raise self.error
        return await super().take_quota(count, per_minute=per_minute, ahead_seconds=ahead_seconds)


class Desk:
    """A keeper, its flow control, and requests that start as soon as they may."""

    def __init__(self, per_minute: float) -> None:
        self.queue = _Permits()
        self.keeper = QuotaKeeper(self.queue, per_minute, now, lambda: 1)
        self.flow: Flow = flow(requests_per_minute=per_minute, on_short=self.keeper.run_short)
        self.started: list[float] = []

    async def send(self) -> None:
        while True:
            permit = await self.flow.admit("c", "update")
            self.started.append(now())
            permit.end(SUCCEEDED)


@in_virtual_time
async def test_a_worker_without_work_asks_for_nothing() -> None:
    desk = Desk(600.0)
    with running(desk.keeper.run(desk.flow)):
        await asyncio.sleep(3_600.0)
    assert not desk.queue.asked


@in_virtual_time
@pytest.mark.parametrize("per_minute", [60.0, 600.0, 6_000.0])
async def test_the_whole_rate_is_used_with_a_few_calls_a_second_for_half_a_second_each(per_minute: float) -> None:
    desk = Desk(per_minute)
    with running(desk.keeper.run(desk.flow), desk.send()):
        await asyncio.sleep(60.0)
    assert len(desk.started) == pytest.approx(per_minute, rel=0.05)
    assert {count for _, count in desk.queue.asked} == {max(1, round(per_minute / 120))}
    assert len(desk.queue.asked) <= 4 * 60 + 1


@in_virtual_time
async def test_a_silent_store_is_asked_once_at_a_time() -> None:
    desk = Desk(600.0)
    with running(desk.keeper.run(desk.flow), desk.send()):
        await asyncio.sleep(30.0)
        desk.queue.takes_seconds, desk.queue.error, before = 10.0, QueueUnavailable("away"), len(desk.queue.asked)
        await asyncio.sleep(100.0)
    assert len(desk.queue.asked) - before <= 11


@in_virtual_time
async def test_work_goes_on_at_the_last_share_while_the_store_is_away_and_by_grants_afterwards() -> None:
    desk = Desk(600.0)
    with running(desk.keeper.run(desk.flow), desk.send()):
        await asyncio.sleep(30.0)
        desk.queue.error, before = QueueUnavailable("away"), len(desk.started)
        await asyncio.sleep(60.0)
        assert len(desk.started) - before == pytest.approx(600, rel=0.05)
        desk.queue.error, before = None, len(desk.started)
        await asyncio.sleep(60.0)
        assert len(desk.started) - before == pytest.approx(600, rel=0.05)


@in_virtual_time
async def test_a_store_that_lost_its_schema_ends_the_keeper() -> None:
    desk = Desk(600.0)
    desk.queue.error = QueueMisnamed("it is a cluster")
    desk.keeper.run_short()
    with pytest.raises(ExceptionGroup) as died:
        await asyncio.wait_for(desk.keeper.run(desk.flow), 10.0)
    assert isinstance(died.value.exceptions[0], QueueMisnamed)
