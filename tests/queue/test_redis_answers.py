"""Answers that never come: what was claimed for nobody is given back, before its lease runs out."""

import asyncio
from pathlib import Path

import pytest

from tests.queue.helpers import about, change, changes, claim, claim_one, finished, labels
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import a_place, running
from worker.queue import QueueUnavailable
from worker.queue.base import Stored
from worker.queue.redis import RedisQueue


async def test_a_claim_whose_answer_was_lost_is_given_back_by_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with (
            Proxy(server.port) as network,
            await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue,
            await RedisQueue.open(server.url()) as other,
        ):
            await queue.put([change("c-1"), change("c-2")])
            with network.deaf(), pytest.raises(QueueUnavailable, match="did not answer"):
                await claim(queue)
            assert await claim(other) == []

            assert len(await claim(queue)) == 2


async def test_a_claim_whose_caller_went_is_given_back_when_the_queue_is_closed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(server.url()) as other:
            async with await RedisQueue.open(network.url()) as queue:
                await queue.put([change("c-1")])
                with network.deaf():
                    goes = asyncio.create_task(claim(queue))
                    await network.heard()
                    goes.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await goes
                assert await claim(other) == []

            assert len(await claim(other)) == 1


async def test_what_was_claimed_before_a_lost_claim_is_not_given_back(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue:
            await queue.put([change("c-1")])
            claimed = await claim_one(queue)
            with network.silent(), pytest.raises(QueueUnavailable):
                await claim(queue)
            assert await claim(queue) == []

            assert await queue.settle([finished(claimed)]) == []


async def test_a_lost_claim_that_somebody_else_has_taken_over_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with (
            Proxy(server.port) as network,
            await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue,
            await RedisQueue.open(server.url()) as other,
        ):
            await queue.put([change("c-1")])
            with network.deaf(), pytest.raises(QueueUnavailable):
                await queue.claim(1, lease_seconds=0.001, owner="worker")
            claimed = await claim_one(other)

            assert await claim(queue) == []
            assert await other.settle([finished(claimed)]) == []


async def test_claims_that_run_side_by_side_give_back_only_their_own(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue:
            await queue.put([change(f"c-{i}") for i in range(20)])
            claims = await asyncio.gather(*(claim(queue, 4) for _ in range(5)))
            await claim(queue)

            assert await queue.settle([finished(claimed) for part in claims for claimed in part]) == []
            assert (await queue.status()).pending == 0


async def test_a_put_whose_answer_was_lost_is_safe_to_repeat_with_change_ids(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue:
            batch = [change("c-1", str(i), change_id=f"line-{i}") for i in range(3)]
            with network.deaf(), pytest.raises(QueueUnavailable):
                await queue.put(batch)

            assert await queue.put(batch) == Stored(added=0, duplicates=3)
            assert labels(await claim_one(queue)) == ["0", "1", "2"]


async def test_a_settlement_whose_answer_was_lost_is_stale_when_it_is_repeated(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue:
            await queue.put(changes("c-1", "ab"))
            settlement = finished(await claim_one(queue))
            with network.deaf(), pytest.raises(QueueUnavailable):
                await queue.settle([settlement])

            assert await queue.settle([settlement]) == [settlement]
            assert (await queue.status()).pending == 0


async def test_the_time_is_the_servers() -> None:
    async with a_place() as place, await RedisQueue.open(place.url) as queue:
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        seconds, _ = await place.client.time()

        assert claimed.changes[0].enqueued_at == about(seconds + 0.5)
        assert await queue.next_due_seconds() == about(60)
