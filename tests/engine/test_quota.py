"""A rate that several workers share, seen by one of them."""

import asyncio

import pytest

from tests.engine.conftest import Bench
from tests.engine.wrapping import WrappedQueue
from tests.virtual import run
from worker.engine.quota import QuotaKeeper, QuotaShare
from worker.flow import SUCCEEDED, Flow
from worker.queue import Grant, QueueUnavailable
from worker.queue.memory import MemoryQueue

RATE = 1_200.0  # a minute


class _Counting(WrappedQueue):
    """Counts how often permits are asked for."""

    asked = 0

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        self.asked += 1
        return await super().take_quota(requests, per_minute=per_minute, ahead_seconds=ahead_seconds)


async def _put(bench: Bench, count: int) -> None:
    ids = [f"chatcmpl-{number}" for number in range(count)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")


async def test_a_few_calls_serve_many_requests_and_none_are_made_without_work(bench: Bench) -> None:
    queue = _Counting(bench.queue)
    worker = bench.worker(queue=queue, drain=False, requests_per_minute=RATE)
    running = asyncio.create_task(worker.run())
    try:
        await asyncio.sleep(0.5)
        assert queue.asked == 0
        await _put(bench, 40)
        async with asyncio.timeout(30):
            while worker.totals.applied < 40:
                await asyncio.sleep(0.01)
        assert 1 <= queue.asked <= 20
    finally:
        worker.stop()
        await running


async def test_work_goes_on_at_the_last_share_while_the_store_gives_no_permits(bench: Bench) -> None:
    bench.queue = MemoryQueue()
    queue = WrappedQueue(bench.queue)
    await _put(bench, 60)
    worker = bench.worker(queue=queue, drain=True, requests_per_minute=RATE)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while worker.totals.applied < 20:
            await asyncio.sleep(0.01)
        queue.unavailable.add("take_quota")
        summary = await running
    assert summary.totals.applied == 60
    assert queue.refused


class _Away(WrappedQueue):
    """A store that can be away: it says so at once, or is silent until the time-out."""

    answers_after: float | None = None

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        if self.answers_after is not None:
            await asyncio.sleep(self.answers_after)
            raise QueueUnavailable("away")
        return await super().take_quota(requests, per_minute=per_minute, ahead_seconds=ahead_seconds)


async def _used_while_away(workers: int, per_minute: float, answers_after: float) -> float:
    """The share of the rate that is used in the ten minutes after a store has gone that was there for three."""
    loop, started = asyncio.get_running_loop(), list[float]()
    store = _Away(MemoryQueue(clock=loop.time))

    async def apply(flow: Flow, number: int) -> None:
        while True:
            permit = await flow.admit(str(number), "update")
            started.append(loop.time())
            await asyncio.sleep(0.1)
            permit.end(SUCCEEDED)

    tasks = []
    for _ in range(workers):
        keeper = QuotaKeeper(store, per_minute, loop.time, lambda: workers)
        flow = Flow(
            max_concurrency=8,
            requests_per_minute=per_minute,
            patience_seconds=5.0,
            on_short=keeper.run_short,
            clock=loop.time,
        )
        tasks.append(asyncio.create_task(keeper.run(flow)))
        tasks += [asyncio.create_task(apply(flow, number)) for number in range(8)]
    await asyncio.sleep(180)
    store.answers_after, gone_at = answers_after, loop.time()
    await asyncio.sleep(600)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(at > gone_at for at in started) / (per_minute * 10)


@pytest.mark.parametrize("answers_after", [0.0, 5.0], ids=["refuses", "is silent"])
@pytest.mark.parametrize(("workers", "per_minute"), [(1, 600.0), (4, 600.0), (4, 60.0), (4, 10.0)])
def test_while_the_store_is_away_the_rate_stays_the_same(workers: int, per_minute: float, answers_after: float) -> None:
    # Four take turns at few permits. One with a single grant counts on a quarter, the others on a third.
    assert 0.8 < run(_used_while_away(workers, per_minute, answers_after)) < 1.3


async def test_without_a_limit_no_permits_are_asked_for(bench: Bench) -> None:
    queue = _Counting(bench.queue)
    await _put(bench, 20)
    await bench.worker(queue=queue).run()
    assert queue.asked == 0


@pytest.mark.parametrize("per_minute", [6.0, 60.0, 600.0, 6_000.0])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_share_is_the_workers_part_of_the_granted_rate(per_minute: float, workers: int) -> None:
    common = 60.0 / per_minute
    share, block = QuotaShare(common, lambda: workers), max(1, int(0.5 / common))
    for number in range(20):  # each worker in its turn
        share.granted(number * block * common * workers, Grant(block, 0.0))
    now = outage = 19 * block * common * workers
    taken = 0
    while now < outage + 3_600.0:
        granted = share.take(now)
        taken += granted.requests
        now += granted.wait_seconds if not granted.requests else 0.1
    assert taken == pytest.approx(60.0 * per_minute / workers, abs=2 * block + 1)


def test_after_a_single_grant_the_share_is_the_rate_divided_by_the_workers() -> None:
    share = QuotaShare(1.0, lambda: 4)
    share.granted(0.0, Grant(1, 0.0))
    assert share.interval_seconds == pytest.approx(4.0)


def test_without_a_grant_there_is_no_share() -> None:
    assert QuotaShare(1.0, lambda: 1).take(100.0).requests == 0
