"""What survives a crash of the server, and the warnings about what would not."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.queue.helpers import bury, change, claim, claim_one, finished, labels, letters, pending_labels
from tests.queue.redis_server import DURABLE, running
from worker.queue import PendingSelection, Place, QueueUnavailable, Settlement, Withdrawn
from worker.queue.redis import RedisQueue

SIZE = 8


async def test_what_put_and_settle_have_confirmed_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    with running(tmp_path, DURABLE) as server:
        async with await RedisQueue.open(server.url()) as queue:
            for batch in range(5):
                await queue.put([change("c-1", str(batch)), change("c-2", str(batch), change_id=f"line-{batch}")])
            first, second = await queue.claim(2, lease_seconds=60, owner="worker")
            await queue.settle(
                [
                    finished(first),
                    Settlement(
                        second, applied=[second.changes[0].number], trials=[(second.changes[1].number, "failed")]
                    ),
                ]
            )
            await bury(queue, change("c-3", "dead"))
            await queue.put([change("c-4", "last")])
            server.kill()

        server.start()
        async with await RedisQueue.open(server.url()) as queue:
            assert (await queue.status()).dead == 1 + 4
            assert await pending_labels(queue) == {"c-4": ["last"]}
            assert [letter.completion_id for letter in await letters(queue)] == ["c-2"] * 4 + ["c-3"]


async def test_batches_that_were_confirmed_survive_a_kill_and_none_is_there_by_halves(tmp_path: Path) -> None:
    with running(tmp_path, DURABLE) as server:
        for kill_after in (1, 7, 20):
            async with await RedisQueue.open(server.url()) as queue:
                confirmed = asyncio.Semaphore(0)
                putting = asyncio.create_task(_put_until_it_fails(queue, confirmed))
                for _ in range(kill_after):
                    await confirmed.acquire()
                server.kill()
                batches = await putting
            server.start()

            async with await RedisQueue.open(server.url()) as queue:
                claims = await claim(queue)
                [stored] = {len(claimed.changes) for claimed in claims}
                assert len(claims) == SIZE
                assert kill_after <= batches <= stored <= batches + 1
                await queue.settle([finished(claimed) for claimed in claims])


async def _put_until_it_fails(queue: RedisQueue, confirmed: asyncio.Semaphore) -> int:
    """Put one change for each completion, again and again; return how often that was confirmed."""
    batches = 0
    try:
        while True:
            await queue.put([change(f"c-{i}", str(batches)) for i in range(SIZE)])
            batches += 1
            confirmed.release()
    except QueueUnavailable:
        return batches


async def test_a_lease_outlives_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, DURABLE) as server:
        async with await RedisQueue.open(server.url()) as queue:
            await queue.put([change("c-1")])
            claimed = await claim_one(queue)
            server.kill()

        server.start()
        async with await RedisQueue.open(server.url()) as queue:
            assert await queue.claim(1, lease_seconds=60, owner="other") == []
            assert await queue.settle([finished(claimed)]) == []


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (DURABLE, []),
        ({"appendonly": "yes", "appendfsync": "everysec"}, []),
        ({"appendonly": "yes", "maxmemory-policy": "volatile-lru"}, []),
        ({"appendonly": "no"}, ["keeps no append-only file"]),
        ({"appendonly": "yes", "appendfsync": "no"}, ["leaves it to its operating system"]),
        ({"appendonly": "yes", "maxmemory-policy": "allkeys-lru"}, ["throws keys away"]),
        ({"appendonly": "no", "maxmemory-policy": "allkeys-lfu"}, ["no append-only file", "allkeys-lfu"]),
    ],
)
async def test_warnings_name_what_can_be_lost(tmp_path: Path, options: Mapping[str, str], warnings: list[str]) -> None:
    with running(tmp_path, options) as server:
        async with await RedisQueue.open(server.url()) as queue:
            assert len(queue.warnings) == len(warnings)
            for words, found in zip(warnings, queue.warnings, strict=True):
                assert words in found
                assert found.startswith(f"redis://127.0.0.1:{server.port}/0 ")


async def test_a_queue_whose_keys_were_evicted_works_on(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, server.client() as client:
            await queue.put([change("c-1", "gone"), change("c-2", "kept")])
            await client.delete("metasync:changes:c-1")

            assert await pending_labels(queue) == {"c-2": ["kept"]}
            await queue.put([change("c-1", "new")])
            assert await pending_labels(queue) == {"c-1": ["new"]}


@pytest.mark.parametrize("key", ["changes:c-1", "urgent:changes", "batch", "batches", "batches:finished", "lease"])
@pytest.mark.parametrize("is_urgent", [True, False])
async def test_of_what_is_kept_beside_urgent_changes_nothing_is_missed_for_long(
    tmp_path: Path, key: str, *, is_urgent: bool
) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, server.client() as client:
            await queue.put([change("c-1", "gone"), change("c-2")], batch="b", urgent=True)
            await client.delete(f"metasync:{key}")
            await queue.put([change("c-1", "new")], batch="b", urgent=is_urgent)

            places: tuple[Place, ...] = ("urgent", "oldest")
            claims = [
                each for place in places for each in await queue.claim(9, lease_seconds=60, owner="worker", place=place)
            ]
            assert sorted(each.completion_id for each in claims) == ["c-1", "c-2"]  # each once: one writer
            assert await queue.settle([finished(each) for each in claims]) == []
            found = {each.completion_id: labels(each) for each in claims}
            assert found["c-1"] == (["new"] if key == "changes:c-1" else ["gone", "new"])
            assert await queue.next_due_seconds() is None
            assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(0, 0)
            await queue.put([change("c-1", "usual")])
            assert await pending_labels(queue) == {"c-1": ["usual"]}


async def test_changes_that_were_evicted_under_a_lease_are_settled_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, server.client() as client:
            await queue.put([change("c-1"), change("c-2")])
            claims = await queue.claim(2, lease_seconds=60, owner="worker")
            await client.delete("metasync:changes:c-1")

            assert await queue.settle([finished(claimed) for claimed in claims]) == []
            assert await queue.next_due_seconds() is None
