"""Several shards, on one server and on a cluster: what is spread, what is merged, and what goes on without one."""

from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import compress
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.queue.helpers import (
    EVERY_LETTER,
    bury,
    change,
    changes,
    claim,
    died,
    finished,
    labels,
    letters,
    pending_labels,
)
from tests.queue.redis_server import SLOTS, a_place, cluster, until
from worker.queue import QueueUnavailable, QueueUnusable
from worker.queue.base import DeadSelection, Revived, Settlement, Stored
from worker.queue.redis import RedisQueue
from worker.queue.redis.shard import shard_base

SHARDS = 4
MANY = [f"c-{i}" for i in range(60)]


@pytest.fixture
async def queue() -> AsyncIterator[RedisQueue]:
    async with a_place() as place, await RedisQueue.open(f"{place.url}&shards={SHARDS}") as queue:
        yield queue


async def test_completions_are_spread_and_each_keeps_its_order(queue: RedisQueue) -> None:
    for label in "abc":
        assert await queue.put([change(completion_id, label) for completion_id in MANY]) == Stored(len(MANY), 0)

    assert await pending_labels(queue) == {completion_id: ["a", "b", "c"] for completion_id in MANY}


async def test_every_shard_has_its_share(queue: RedisQueue) -> None:
    await queue.put([change(completion_id) for completion_id in MANY])

    shares = [(await shard.status()).pending for shard in queue._shards]
    assert sum(shares) == len(MANY)
    assert min(shares) > 0


async def test_claims_go_round_the_shards(queue: RedisQueue) -> None:
    await queue.put([change(completion_id) for completion_id in MANY])
    places: dict[str, int] = {}
    for place, shard in enumerate(queue._shards):
        for claimed in await shard.claim(len(MANY), lease_seconds=0, owner="worker"):
            places[claimed.completion_id] = place

    taken = [places[claimed.completion_id] for _ in range(SHARDS) for claimed in await claim(queue, 2)]

    assert taken == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_a_claim_takes_from_other_shards_what_one_does_not_have(queue: RedisQueue) -> None:
    await queue.put([change(completion_id) for completion_id in MANY])

    assert len(await claim(queue, 59)) == 59
    assert len(await claim(queue, 59)) == 1
    assert await claim(queue) == []


async def test_numbers_are_never_the_same_in_two_shards(queue: RedisQueue) -> None:
    await queue.put([change(completion_id) for completion_id in MANY])
    claims = await claim(queue)
    await queue.settle([died(claimed) for claimed in claims])

    assert len({each.number for claimed in claims for each in claimed.changes}) == len(MANY)
    assert len({letter.number for letter in await letters(queue)}) == len(MANY)


async def test_stale_and_lost_claims_of_several_shards_come_back_in_their_order(queue: RedisQueue) -> None:
    await queue.put([change(completion_id) for completion_id in MANY])
    claims = sorted(await claim(queue), key=lambda claimed: int(claimed.completion_id[2:]))
    gone = claims[::3]
    await queue.settle([finished(claimed) for claimed in gone])
    late = [Settlement(claimed, attempts=1) for claimed in claims]

    assert await queue.extend(claims, lease_seconds=60) == gone
    assert await queue.settle(late) == late[::3]


async def test_counts_are_of_all_shards(queue: RedisQueue) -> None:
    await bury(queue, *(change(completion_id) for completion_id in MANY[:10]))
    await queue.put([change(completion_id) for completion_id in MANY])
    claims = await claim(queue, 20)
    await queue.settle([Settlement(claimed, delay_seconds=60) for claimed in claims[:5]])

    status = await queue.status()
    assert (status.pending, status.in_flight, status.waiting, status.dead) == (60, 15, 5, 10)
    assert status.oldest_pending_seconds is not None
    assert status.recent_per_second >= 10 / 300
    assert await queue.next_due_seconds() is not None


async def test_letters_of_several_shards_are_merged_by_time_of_death(queue: RedisQueue) -> None:
    for completion_id in MANY:
        await bury(queue, change(completion_id))

    assert [letter.completion_id for letter in await letters(queue)] == MANY


async def test_letters_are_selected_retried_and_purged_in_every_shard(queue: RedisQueue) -> None:
    await bury(queue, *(change(completion_id) for completion_id in MANY))
    some = {letter.number: letter.completion_id for letter in (await letters(queue))[::4]}
    selection = DeadSelection(numbers=list(some))

    assert {letter.completion_id for letter in await letters(queue, selection)} == set(some.values())
    assert await queue.retry_dead(selection) == Revived(len(some), 0)
    assert set(await pending_labels(queue)) == set(some.values())
    assert await queue.purge_dead(EVERY_LETTER) == len(MANY) - len(some)
    assert await letters(queue) == []


async def test_a_change_id_is_known_in_the_shard_of_its_completion(queue: RedisQueue) -> None:
    twice = [change("c-1", change_id="line-1"), change("c-1", change_id="line-1")]

    assert await queue.put(twice) == Stored(1, 1)
    assert await queue.put(twice[:1]) == Stored(0, 1)


async def test_notes_are_read_whatever_the_shards(queue: RedisQueue) -> None:
    await queue.write_note("limit", "8.3")

    assert (await queue.read_notes())["limit"].text == "8.3"


async def test_a_cluster_is_used_as_one_queue(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2) as (first, second):
        async with await RedisQueue.open(first.url(shards=SHARDS)) as queue:
            assert await queue.put([change(completion_id) for completion_id in MANY]) == Stored(len(MANY), 0)
        async with await RedisQueue.open(second.url(shards=SHARDS)) as queue:
            assert len(queue.warnings) == 1
            assert (await queue.status()).pending == len(MANY)
            assert await queue.settle([finished(claimed) for claimed in await claim(queue)]) == []
            assert await queue.next_due_seconds() is None
        for server in (first, second):
            async with server.client() as client:
                assert (await client.info("commandstats"))["cmdstat_fcall"]["calls"] > 0


async def test_the_other_shards_go_on_while_a_node_is_down(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2) as (first, second), await RedisQueue.open(first.url(shards=SHARDS)) as queue:
        await queue.put([change(completion_id) for completion_id in MANY])
        pending = [(await shard.status()).pending for shard in queue._shards]
        is_kept = [key_slot(shard_base("metasync", index).encode()) < SLOTS / 2 for index in range(SHARDS)]
        assert set(is_kept) == {True, False}
        second.kill()

        found = 0
        expected = sum(compress(pending, is_kept))

        async def all_that_is_left_is_claimed() -> bool:
            """Each claim begins with another shard; any may fail while the client learns that the node has gone."""
            nonlocal found
            with suppress(QueueUnavailable):
                found += len(await claim(queue))
            return found >= expected

        await until(all_that_is_left_is_claimed)
        assert found == expected
        with pytest.raises(QueueUnavailable):
            await queue.put([change(completion_id) for completion_id in MANY])
        with pytest.raises(QueueUnavailable):
            await queue.next_due_seconds()


async def test_a_library_that_one_node_has_lost_is_loaded_there_again(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, nodes=2) as (first, second),
        await RedisQueue.open(first.url(shards=SHARDS)) as queue,
        second.client() as client,
    ):
        await queue.put([change(completion_id) for completion_id in MANY])
        await client.function_flush()

        assert len(await claim(queue)) == len(MANY)


async def test_a_cluster_has_no_numbered_databases(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as [server]:
        with pytest.raises(QueueUnusable, match="a cluster has database 0 alone"):
            await RedisQueue.open(server.url().replace("/0", "/1"))


async def test_one_shard_is_enough_for_a_cluster(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as [server], await RedisQueue.open(server.url()) as queue:
        await queue.put(changes("c-1", "ab"))
        [claimed] = await claim(queue)

        assert labels(claimed) == ["a", "b"]
