"""Redis keeps no key of finished and forgotten changes, which would pile up for ever."""

from tests.queue.helpers import change, claim, died, numbers
from tests.queue.redis_server import a_place
from worker.queue import DeadSelection, Settlement, Store
from worker.queue.redis import RedisQueue


async def _done(queue: Store, *, keep_seconds: float = 0.0) -> None:
    """Put a change, and have it applied and confirmed."""
    await queue.put([change("c-1", change_id="line-1")])
    [claimed] = await claim(queue)
    settlement = Settlement(claimed, applied=numbers(claimed), confirmed={"label": "x"})
    assert await queue.settle([settlement], keep_seconds=keep_seconds) == []


async def test_nothing_is_left_of_a_change_that_is_done() -> None:
    async with a_place() as place, await RedisQueue.open(place.url) as queue:
        await _done(queue)
        names = {key.decode().removeprefix(place.base) for key in await place.keys()}

    # The counters, that something was put, what came last, the history, and the answers of the last two calls.
    assert {name.partition(":")[0] for name in names} == {"queue", "news", "recent", "minute", "caller", "told"}


async def test_nothing_is_left_of_a_letter_that_is_purged_or_retried() -> None:
    async with a_place() as place, await RedisQueue.open(place.url) as queue:
        await queue.put([change("c-1"), change("c-2")], batch="b")
        await queue.settle([died(each) for each in await claim(queue)])
        assert (await queue.retry_dead(DeadSelection(completion_id="c-1"))).retried == 1
        assert await queue.purge_dead(DeadSelection(batch="b")) == 1
        names = {key.decode().removeprefix(place.base).partition(":")[0] for key in await place.keys()}

    assert not names & {"letter", "dead"}


async def test_the_log_of_what_was_confirmed_has_as_many_maps_as_entries() -> None:
    async with a_place() as place, await RedisQueue.open(place.url) as queue:
        for _ in range(4):
            await _done(queue, keep_seconds=1e-6)
        entries, maps = (
            await place.client.xlen(f"{place.base}confirmed"),
            await place.client.hlen(f"{place.base}confirmed:maps"),
        )

    assert entries == maps < 4
