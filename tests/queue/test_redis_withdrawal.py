"""Withdrawals on Redis: long lists, walks during changes, lost answers, kills and failovers."""

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.queue.helpers import (
    LEASE_SECONDS,
    Ending,
    change,
    changes,
    claim,
    claim_one,
    died,
    finished,
    labels,
    numbers,
)
from tests.queue.redis_contents import check
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import DURABLE, Place, RedisServer, a_place, running, until
from worker.queue import Claim, DeadSelection, PendingSelection, QueueUnavailable, Settlement, Withdrawn
from worker.queue import Place as Where
from worker.queue.redis import RedisQueue
from worker.queue.redis.pending import Walk

WRONG = PendingSelection(batch="wrong")
PLACES: tuple[Where, ...] = ("urgent", "oldest", "newest", "middle")


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place


@pytest.fixture
async def queue(place: Place) -> AsyncIterator[RedisQueue]:
    async with await RedisQueue.open(place.url) as queue:
        yield queue


def first_applied(claimed: Claim) -> Settlement:
    return Settlement(claimed, applied=numbers(claimed)[:1])


async def check_on(server: RedisServer, queue: RedisQueue) -> None:
    async with Redis(port=server.port, protocol=2) as client:
        await check(client, queue)


async def withdraw_a_piece(
    queue: RedisQueue, selection: PendingSelection, walk: Walk | None
) -> tuple[Withdrawn, Walk | None]:
    return await queue._withdraw(selection, walk)


@pytest.mark.parametrize("size", [499, 500, 501, 1_600])
async def test_every_other_change_of_a_long_list_is_withdrawn(place: Place, queue: RedisQueue, size: int) -> None:
    for number in range(size):
        await queue.put(change("c-1", str(number), change_id=f"id-{number}"), batch="wrong" if number % 2 else "right")

    assert await queue.withdraw(WRONG) == Withdrawn(size // 2, 0)

    await check(place.client, queue, place.base)
    assert [each.change_id async for each in queue.pending_changes()] == [f"id-{i}" for i in range(0, size, 2)]


async def test_a_long_list_is_withdrawn_whole_and_by_its_completion(place: Place, queue: RedisQueue) -> None:
    await queue.put(changes("c-1", range(1_700)), batch="wrong", urgent=True)
    await queue.put(changes("c-2", range(3)))

    assert await queue.withdraw(PendingSelection(completion_id="c-1")) == Withdrawn(1_700, 0)

    await check(place.client, queue, place.base)
    assert [claimed.completion_id for claimed in await claim(queue)] == ["c-2"]


async def test_a_change_id_far_down_a_long_list_takes_two_calls(place: Place, queue: RedisQueue) -> None:
    await queue.put([change("c-1", str(i), change_id=f"id-{i}") for i in range(3_000)])
    before = (await place.client.info("commandstats"))["cmdstat_fcall"]["calls"]

    assert await queue.withdraw(PendingSelection(change_id="id-1234")) == Withdrawn(1, 0)

    assert (await place.client.info("commandstats"))["cmdstat_fcall"]["calls"] == before + 2
    await check(place.client, queue, place.base)


@pytest.mark.parametrize("meanwhile", ["settled", "withdrawn"])
async def test_what_goes_from_the_head_of_a_list_between_two_pieces_hides_nothing(
    place: Place, queue: RedisQueue, meanwhile: str
) -> None:
    await queue.put(changes("c-1", range(700)))
    await queue.put(changes("c-1", range(700, 1_500)), batch="wrong")
    part, walk = await withdraw_a_piece(queue, PendingSelection(completion_id="c-1", batch="wrong"), None)
    pieces = queue.pending_changes(PendingSelection(completion_id="c-1", batch="wrong"))
    read = [(await anext(pieces)).number]
    if meanwhile == "settled":
        claimed = await claim_one(queue)
        await queue.settle([Settlement(claimed, applied=numbers(claimed)[:600])])
    else:
        async with await RedisQueue.open(place.url) as other:
            for number in [each.number async for each in other.pending_changes()][:600]:
                await place.client.lpop(f"{place.base}changes:c-1", 1)
                assert number
            await place.client.hincrby(f"{place.base}queue", "pending", -600)

    read += [each.number async for each in pieces]
    assert len(read) == 800
    withdrawn = part.withdrawn
    while walk is not None:
        part, walk = await withdraw_a_piece(queue, PendingSelection(completion_id="c-1", batch="wrong"), walk)
        withdrawn += part.withdrawn
    assert withdrawn == 800
    assert (await queue.status()).pending == 100


async def test_a_walk_reaches_what_becomes_urgent_or_usual_meanwhile(place: Place, queue: RedisQueue) -> None:
    size = 700
    await queue.put([change(f"c-{i}") for i in range(size)], batch="wrong")
    await queue.put([change(f"u-{i}") for i in range(size)], batch="hurried", urgent=True)
    await queue.put([change(f"u-{i}") for i in range(size)], batch="wrong")
    part, walk = await withdraw_a_piece(queue, WRONG, None)
    withdrawn = part.withdrawn
    await queue.put([change(f"c-{i}") for i in range(size)], batch="hurry", urgent=True)
    await queue.withdraw(PendingSelection(batch="hurried"))
    while walk is not None:
        part, walk = await withdraw_a_piece(queue, WRONG, walk)
        withdrawn += part.withdrawn

    assert withdrawn == 2 * size
    await check(place.client, queue, place.base)
    assert await claim(queue) == []
    assert len(await queue.claim(9_000, lease_seconds=60, owner="worker", place="urgent")) == size


async def test_what_is_in_hand_is_counted_once_however_long(place: Place, queue: RedisQueue) -> None:
    await queue.put(changes("c-1", range(1_200)), batch="wrong")
    await queue.put([change(f"c-{i}") for i in range(2, 900)], batch="wrong")
    claimed = await claim(queue, 400)

    assert await queue.withdraw(WRONG) == Withdrawn(898 - 399, 1_200 + 399)

    assert await queue.settle([finished(each) for each in claimed]) == []
    assert await queue.withdraw(WRONG) == Withdrawn(200, 0)
    await check(place.client, queue, place.base)
    [batch] = await queue.batches()
    assert (batch.applied, batch.withdrawn, batch.pending) == (1_000 + 399, 898 - 399 + 200, 0)


async def test_an_urgent_claim_whose_answer_was_lost_is_given_back(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue:
            await queue.put([change("u-1"), change("u-2")], urgent=True)
            await queue.put([change("c-1")])
            for place in PLACES[:2]:
                with network.deaf(), pytest.raises(QueueUnavailable, match="did not answer"):
                    await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place=place)
                await queue.put(change("c-1"), urgent=True)  # it moves while leased by a lost claim

            found = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
            assert {claimed.completion_id for claimed in found} == {"u-1", "u-2", "c-1"}
            await check_on(server, queue)


async def test_a_withdrawal_whose_answer_was_lost_is_safe_to_repeat(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url()) as queue:
            await queue.put([change(f"c-{i}") for i in range(300)], batch="wrong")
            with network.deaf():
                withdrawing = asyncio.ensure_future(queue.withdraw(PendingSelection(completion_id="c-7")))
                await network.heard()
                network.cut()
            with pytest.raises(QueueUnavailable):
                await withdrawing

            assert await queue.withdraw(PendingSelection(completion_id="c-7")) == Withdrawn(0, 0)
            assert await queue.withdraw(WRONG) == Withdrawn(299, 0)
            [batch] = await queue.batches()
            assert (batch.withdrawn, batch.pending) == (300, 0)
            assert sum(minute.withdrawn for minute in await queue.history(2)) == 300


async def test_settlements_of_batches_whose_answer_was_lost_are_counted_once(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url()) as queue:
            await queue.put([change("c-1", change_id="one"), change("c-2"), change("c-3")], batch="b", urgent=True)
            first, second, third = await queue.claim(9, lease_seconds=60, owner="worker", place="urgent")
            settlements = [finished(first), Settlement(second, superseded=numbers(second)), died(third)]
            for _ in range(2):
                with network.deaf():
                    settling = asyncio.ensure_future(queue.settle(settlements, remember=True))
                    await network.heard()
                    network.cut()
                with pytest.raises(QueueUnavailable):
                    await settling

            assert await queue.settle(settlements, remember=True) == []
            [batch] = await queue.batches()
            assert (batch.applied, batch.superseded, batch.dead, batch.pending) == (1, 1, 1, 0)
            assert (await queue.put(change("c-1", change_id="one"))).duplicates == 1
            await check_on(server, queue)


_WITHDRAW = """
import asyncio, sys
from worker.queue import PendingSelection, open_queue

async def main():
    async with open_queue(sys.argv[1]) as queue:
        walk = None
        while True:
            part, walk = await queue._withdraw(PendingSelection(batch="wrong"), walk)
            print(part.withdrawn, flush=True)
            if walk is None:
                break

asyncio.run(main())
"""


async def test_a_client_that_is_killed_in_the_midst_leaves_whole_pieces(tmp_path: Path) -> None:
    size = 5_000
    with running(tmp_path, DURABLE) as server:
        async with await RedisQueue.open(server.url()) as queue:
            for name in ("wrong", "right"):
                await queue.put([change(f"c-{i}", name) for i in range(size)], batch=name)
            for pieces in (1, 4, 9):
                client = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", _WITHDRAW, server.url(), stdout=PIPE, cwd=Path.cwd()
                )
                assert client.stdout is not None
                for _ in range(pieces):
                    assert await client.stdout.readline()
                client.send_signal(signal.SIGKILL)
                await client.wait()
                await check_on(server, queue)
            server.kill()

        server.start()
        async with await RedisQueue.open(server.url()) as queue:
            await check_on(server, queue)
            [_, wrong] = await queue.batches()
            assert 0 < wrong.withdrawn < size
            assert await queue.withdraw(WRONG) == Withdrawn(size - wrong.withdrawn, 0)
            await check_on(server, queue)
            claims = await claim(queue, 2 * size)
            assert {tuple(labels(claimed)) for claimed in claims} == {("right",)}


async def test_a_replica_that_takes_over_in_the_midst_knows_whole_pieces(tmp_path: Path) -> None:
    size = 4_000
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    options = {"repl-diskless-sync-delay": "0"}
    with running(tmp_path / "old", options) as old, running(tmp_path / "new", options) as new:
        async with Proxy(old.port) as address, old.client() as primary, new.client() as replica:
            await replica.replicaof("127.0.0.1", str(old.port))

            async def is_in_touch() -> bool:
                return bool((await replica.info("replication"))["master_link_status"] == "up")

            await until(is_in_touch)
            async with await RedisQueue.open(address.url()) as queue:
                for name in ("wrong", "right"):
                    await queue.put([change(f"c-{i}", name) for i in range(size)], batch=name)
                written = (await primary.info("replication"))["master_repl_offset"]

                async def has_what_was_put() -> bool:
                    return bool((await replica.info("replication"))["slave_repl_offset"] >= written)

                await until(has_what_was_put)
                walk = None
                for _ in range(7):
                    _, walk = await withdraw_a_piece(queue, WRONG, walk)
                await replica.replicaof("NO", "ONE")  # with the data that it has by now
                _, walk = await withdraw_a_piece(queue, WRONG, walk)
            old.kill()
            address.port = new.port

            async with await RedisQueue.open(address.url()) as queue:
                await check_on(new, queue)
                [wrong] = await queue.batches("wrong")
                assert wrong.changes == size
                assert await queue.withdraw(WRONG) == Withdrawn(wrong.pending, 0)
                await check_on(new, queue)
                [wrong] = await queue.batches("wrong")
                assert (wrong.withdrawn, wrong.pending) == (size, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_all_verbs_at_once_leave_what_fits_together(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with running(tmp_path) as server:
        async with AsyncExitStack() as stack:
            queues = [await stack.enter_async_context(await RedisQueue.open(server.url())) for _ in range(6)]
            ends = {"stored": 0, "withdrawn": 0, "applied": 0}

            async def produce(queue: RedisQueue) -> None:
                for _ in range(60):
                    given = [change(f"c-{dice.randrange(40)}", change_id=f"id-{dice.random()}") for _ in range(7)]
                    batch = dice.choice([None, "a", "b", "c"])
                    stored = await queue.put(given, batch=batch, urgent=dice.random() < 0.3)
                    ends["stored"] += stored.added

            async def work(queue: RedisQueue) -> None:
                for _ in range(60):
                    where = dice.choice(PLACES)
                    lease = dice.choice([60, 60, 0.001])
                    claims = await queue.claim(5, lease_seconds=lease, owner="w", place=where)
                    endings: list[Ending] = [finished, died, Settlement, first_applied]
                    settlements = [dice.choice(endings)(each) for each in claims]
                    stale = await queue.settle(settlements, remember=True)
                    ends["applied"] += sum(len(each.applied) for each in settlements if each not in stale)

            async def take_back(queue: RedisQueue) -> None:
                for _ in range(40):
                    selection = dice.choice(
                        [PendingSelection(batch="a"), PendingSelection(completion_id=f"c-{dice.randrange(40)}")]
                    )
                    withdrawn = await queue.withdraw(selection)
                    ends["withdrawn"] += withdrawn.withdrawn
                    await queue.retry_dead(DeadSelection(batch="b"))

            produced, worked = queues[:2], queues[2:4]
            await asyncio.gather(*map(produce, produced), *map(work, worked), *map(take_back, queues[4:]))

            await check_on(server, queues[0])
            status = await queues[0].status()
            assert ends["stored"] == status.pending + status.dead + ends["applied"] + ends["withdrawn"]
