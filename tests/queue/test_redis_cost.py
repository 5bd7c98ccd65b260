"""The cost of calls, counted in the server's commands, because time means little on a busy machine."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable

import pytest
from redis.asyncio import Redis

from tests.queue.helpers import bury, change, changes, claim, died, finished, letters
from tests.queue.redis_server import running
from worker.changes import MetadataChange
from worker.queue import DeadSelection, PendingSelection
from worker.queue.redis import RedisQueue
from worker.queue.redis.codec import PAGE

BATCH = 256
SMALL, LARGE = 1_000, 20_000


class Meter:
    """Counts the commands that a server runs."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def commands(self, call: Awaitable[object]) -> int:
        before = await self._total()
        await call
        return await self._total() - before

    async def calls(self, call: Awaitable[object]) -> int:
        """Count the calls of functions alone."""
        before = (await self._counts())["cmdstat_fcall"]
        await call
        return (await self._counts())["cmdstat_fcall"] - before

    async def _total(self) -> int:
        return (await self._counts()).total()

    async def _counts(self) -> Counter[str]:
        counts = Counter({name: stats["calls"] for name, stats in (await self._client.info("commandstats")).items()})
        del counts["cmdstat_info"]
        return counts


@pytest.fixture
async def metered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RedisQueue, Meter]]:
    with running(tmp_path_factory.mktemp("server")) as server:
        async with await RedisQueue.open(server.url()) as queue, server.client() as client:
            await queue.status()
            yield queue, Meter(client)


async def _fill(queue: RedisQueue, first: int, last: int) -> None:
    for start in range(first, last, 5_000):
        await queue.put([change(f"c-{i}") for i in range(start, min(start + 5_000, last))])


async def test_a_batch_costs_the_same_with_any_backlog(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    costs = []
    filled = 0
    for size in (SMALL, LARGE):
        await _fill(queue, filled, size)
        filled = size
        claims = await claim(queue, BATCH)
        costs.append(
            [
                await meter.commands(claim(queue, BATCH)),
                await meter.commands(queue.extend(claims, lease_seconds=60)),
                await meter.commands(queue.settle([finished(claimed) for claimed in claims])),
                await meter.commands(queue.put([change(f"new-{size}-{i}") for i in range(BATCH)])),
                await meter.commands(queue.next_due_seconds()),
            ]
        )

    assert costs[0] == pytest.approx(costs[1], abs=3)  # now and then, old minutes are deleted
    claiming, extending, settling, putting, asking = costs[1]
    assert max(claiming, putting) < 1.1 * BATCH  # about one command for each completion
    assert settling < 2.1 * BATCH
    assert max(extending, asking) < 10


async def test_urgent_targets_cost_the_same_with_any_backlog(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    costs = []
    filled = 0
    for size in (SMALL, LARGE):
        await _fill(queue, filled, size)
        filled = size
        there = [f"c-{size - 1 - i}" for i in range(BATCH)]
        putting = await meter.commands(queue.put(map(change, there), urgent=True))
        again = await meter.commands(queue.put(map(change, there), batch="b", urgent=True))
        asking = await meter.commands(queue.next_due_seconds())
        before = await meter.commands(queue.claim(BATCH, lease_seconds=60, owner="worker", place="oldest"))
        claims = await queue.claim(BATCH, lease_seconds=60, owner="worker", place="urgent")
        assert len(claims) == BATCH
        settling = await meter.commands(queue.settle([finished(claimed) for claimed in claims], remember=True))
        costs.append([putting, again, asking, before, settling])

    assert costs[0] == pytest.approx(costs[1], abs=3)
    assert max(costs[1][:2]) < 1.1 * BATCH
    assert settling < 2.1 * BATCH


async def test_names_and_memory_cost_a_few_commands_for_all(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered

    def dated(round_: int) -> list[MetadataChange]:
        return [
            MetadataChange(f"c-{i}", {"label": "x"}, change_id=f"{round_}-{i}", as_of=1.0 + round_)
            for i in range(BATCH)
        ]

    costs = []
    for round_ in range(3):
        putting = await meter.commands(queue.put(dated(round_), batch=f"b-{round_}"))
        claims = await claim(queue, BATCH)
        settling = await meter.commands(queue.settle([finished(each) for each in claims], remember=True))
        costs.append([putting, settling])

    assert all(putting < 1.1 * BATCH and settling < 2.1 * BATCH for putting, settling in costs)


async def test_an_indexed_withdrawal_costs_the_same_with_any_backlog(
    metered: tuple[RedisQueue, Meter],
) -> None:
    queue, meter = metered
    costs = []
    filled = 0
    for size in (SMALL, LARGE):
        await _fill(queue, filled, size)
        filled = size
        await queue.put(change(f"mine-{size}", change_id=f"id-{size}"))
        by_id = await meter.commands(queue.withdraw(PendingSelection(change_id=f"id-{size}")))
        by_completion = await meter.commands(queue.withdraw(PendingSelection(completion_id="c-7")))
        costs.append([by_id, by_completion])
        assert max(costs[-1]) < 30
        await queue.put([change("c-7")])

    assert costs[0] == pytest.approx(costs[1], abs=3)  # as above


async def test_a_withdrawn_batch_costs_a_few_commands_a_completion_in_short_calls(
    metered: tuple[RedisQueue, Meter],
) -> None:
    queue, meter = metered
    await queue.put([change(f"c-{i}") for i in range(5_000)], batch="wrong")

    commands = await meter.commands(queue.withdraw(PendingSelection(batch="wrong")))

    assert (await queue.status()).pending == 0
    assert commands < 4 * 5_000  # its list, that it is deleted, and what is left of it
    await queue.put(changes("c-1", range(5_000)), batch="wrong")
    calls = await meter.calls(queue.withdraw(PendingSelection(batch="wrong")))
    assert calls == 1 + 5_000 // 500 + 1


async def test_nothing_is_gone_through_where_nothing_is_old(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    await queue.put([change(f"c-{i}", change_id=str(i)) for i in range(BATCH)])
    await queue.settle([finished(each) for each in await claim(queue, BATCH)], remember=True)

    assert await meter.calls(queue.forget(60.0, most=1_000)) == 3


async def test_a_status_looks_at_what_is_leased_or_waits_alone(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    await _fill(queue, 0, SMALL)
    before = await meter.commands(queue.status())
    await _fill(queue, SMALL, LARGE)

    assert await meter.commands(queue.status()) == before


async def test_a_status_of_many_that_are_leased_takes_several_calls(metered: tuple[RedisQueue, Meter]) -> None:
    queue, _ = metered
    await _fill(queue, 0, 2_500)
    claims = await claim(queue, 2_400)

    status = await queue.status()
    assert (status.in_flight, status.pending) == (len(claims), 2_500)


async def test_letters_are_found_without_a_look_at_the_others(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    costs = []
    for size in (10, 4 * PAGE):
        await bury(queue, *changes("c-other", range(size)), reason="invalid")
        await bury(queue, change("c-1"))
        await queue.put(change("c-2"), batch="b")
        await queue.settle([died(each) for each in await claim(queue)])
        costs.append(
            [
                await meter.commands(letters(queue, DeadSelection(batch="b"))),
                await meter.commands(queue.purge_dead(DeadSelection(batch="b"))),
                await meter.commands(queue.purge_dead(DeadSelection(completion_id="c-9"))),
                await meter.commands(letters(queue, DeadSelection(completion_id="c-1", reason="rejected"))),
                await meter.commands(letters(queue, DeadSelection(reason="rejected"))),
                await meter.commands(queue.purge_dead(DeadSelection(completion_id="c-1"))),
            ]
        )

    assert costs[0] == costs[1]


async def test_many_letters_are_purged_in_several_calls(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    await bury(queue, *changes("c-1", range(3 * PAGE)))

    calls = await meter.calls(queue.purge_dead(DeadSelection()))

    assert calls == 3 + 1  # three pages, and nothing after them


async def test_ten_thousand_letters_are_retried_at_ten_times_the_cost_of_a_thousand(
    metered: tuple[RedisQueue, Meter],
) -> None:
    queue, meter = metered
    costs = []
    for count in (1_000, 10_000):
        for start in range(0, count, 1_000):
            await bury(queue, *(change(f"c-{i}") for i in range(start, start + 1_000)))
        costs.append(await meter.commands(queue.retry_dead(DeadSelection())))
        assert (await queue.status()).pending == count
        while claims := await claim(queue, 1_000):
            await queue.settle([finished(claimed) for claimed in claims])

    assert 9 < costs[1] / costs[0] < 11


async def test_what_is_done_at_once_is_one_call_and_only_that(metered: tuple[RedisQueue, Meter]) -> None:
    queue, meter = metered
    await bury(queue, change("c-0"))
    await queue.put([change(f"c-{i}") for i in range(2 * BATCH)])
    claims = await claim(queue, BATCH)

    for call in (
        queue.put([change(f"new-{i}") for i in range(BATCH)]),
        queue.put([change(f"named-{i}") for i in range(BATCH)], batch="b", urgent=True),
        claim(queue, BATCH),
        queue.claim(BATCH, lease_seconds=60, owner="worker", place="urgent"),
        queue.withdraw(PendingSelection(completion_id="named-1")),
        queue.batches("b"),
        queue.extend(claims, lease_seconds=60),
        queue.settle([finished(claimed) for claimed in claims]),
        queue.next_due_seconds(),
        queue.status(),
        letters(queue),
        queue.retry_dead(DeadSelection()),
        queue.purge_dead(DeadSelection()),
        queue.take_quota(1, per_minute=60, ahead_seconds=1),
        queue.write_note("name", "text"),
        queue.read_notes(),
        queue.history(60),
        queue.dead_reasons(),
    ):
        assert await meter.calls(call) == 1


async def test_a_claim_of_large_changes_is_bounded_by_their_size(metered: tuple[RedisQueue, Meter]) -> None:
    queue, _ = metered
    largest = {f"{i:064}": "\N{GRINNING FACE}" * 512 for i in range(16)}
    for i in range(5):
        await queue.put([MetadataChange(f"c-{i}", largest)] * 100)

    sizes = []
    while claims := await claim(queue):
        sizes.append(sum(len(claimed.changes) for claimed in claims))

    assert sum(sizes) == 500
    assert max(sizes) == 200  # of 33 KB each: a third hundred would be more than eight megabytes
