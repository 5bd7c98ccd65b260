"""Lost answers: claims without an owner are released before their lease runs out."""

import asyncio
from pathlib import Path

import pytest

from tests.queue.helpers import about, change, claim, claim_one, finished
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import DURABLE, a_place, running
from worker.queue import QueueUnavailable
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


async def test_a_lost_claim_that_another_worker_has_taken_over_is_left_alone(tmp_path: Path) -> None:
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


async def test_a_server_remembers_of_settlements_no_more_than_may_be_asked_for(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url()) as queue:
            for _ in range(5):
                await queue.put([change("c-1"), change("c-2")])
                settlements = [finished(claimed) for claimed in await claim(queue)]
                with network.deaf():
                    settling = asyncio.ensure_future(queue.settle(settlements))
                    await network.heard()
                    network.cut()
                with pytest.raises(QueueUnavailable):
                    await settling
                for settlement in settlements:
                    assert await queue.settle([settlement]) == []
            await queue.settle([])

            async with server.client() as client:
                [told] = [key async for key in client.scan_iter("*:told:*")]
                assert await client.hlen(told) == 1


@pytest.mark.parametrize("stored", ["before the server went", "once it was back"])
async def test_settlements_may_be_said_again_and_again_to_a_server_that_is_away(tmp_path: Path, stored: str) -> None:
    with running(tmp_path, DURABLE) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url()) as queue:

            async def lose() -> None:
                with network.deaf():
                    settling = asyncio.ensure_future(queue.settle([settlement]))
                    await network.heard()
                    network.cut()
                with pytest.raises(QueueUnavailable):
                    await settling

            await queue.put([change("c-1")])
            settlement = finished(await claim_one(queue))
            if stored == "before the server went":
                await lose()
            server.kill()
            for _ in range(200):
                with pytest.raises(QueueUnavailable):
                    await queue.settle([settlement])
            assert len(list(queue._unanswered.remembered())) < 100
            server.start()
            if stored == "once it was back":
                await lose()

            assert await queue.settle([settlement]) == []
            assert list(queue._unanswered.remembered()) == []


async def test_claims_that_run_side_by_side_give_back_only_their_own(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue:
            await queue.put([change(f"c-{i}") for i in range(20)])
            claims = await asyncio.gather(*(claim(queue, 4) for _ in range(5)))
            await claim(queue)

            assert await queue.settle([finished(claimed) for part in claims for claimed in part]) == []
            assert (await queue.status()).pending == 0


async def test_a_claim_that_arrives_after_a_later_one_takes_and_gives_back_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, await RedisQueue.open(server.url()) as other:
            await queue.put([change("c-1")])
            assert await claim(queue, 0) == []
            held = await claim_one(queue)
            await queue.put([change("c-2")])
            await queue._server.call(
                "claim", 100, 60_000_000, 1_000, 10_000, 8_000_000, queue._caller, 1, 0, "oldest", 0, 0, "worker"
            )

            assert [claimed.completion_id for claimed in await claim(other)] == ["c-2"]
            assert await queue.settle([finished(held)]) == []


async def test_a_claim_that_arrives_late_and_takes_something_is_given_back_by_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue:
            for _ in range(2):
                assert await claim(queue) == []
            await queue.put([change("c-1")])
            await queue._server.call(
                "claim", 100, 60_000_000, 1_000, 10_000, 8_000_000, queue._caller, 1, 0, "oldest", 0, 0, "worker"
            )

            assert len(await claim(queue)) == 1


async def test_the_time_is_the_servers() -> None:
    async with a_place() as place, await RedisQueue.open(place.url) as queue:
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        seconds, _ = await place.client.time()

        assert claimed.changes[0].enqueued_at == about(seconds + 0.5)
        assert await queue.next_due_seconds() == about(60)


async def test_a_put_whose_answer_is_cut_off_is_not_repeated_behind_the_caller_s_back(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=2) as queue:
            with network.deaf():
                putting = asyncio.create_task(queue.put([change("c-1")]))
                await network.heard()
                network.cut()
            with pytest.raises(QueueUnavailable):
                await putting
        async with await RedisQueue.open(server.url()) as queue:
            assert (await queue.status()).pending == 1
