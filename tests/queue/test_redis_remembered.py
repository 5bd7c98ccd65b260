"""Records of finished changes in Redis: packed, and cleaned up in small steps."""

from collections.abc import AsyncIterator

import pytest

from tests.queue.conformance.backends import START
from tests.queue.helpers import change, claim, finished
from tests.queue.redis_server import Place, RedisClock, a_place
from worker.changes import MetadataChange
from worker.queue.redis import RedisQueue
from worker.queue.redis import queue as module
from worker.queue.redis.library import Library, named

DAY = 86_400.0
FIELDS = 131_072


def crowded(fields: int) -> Library:
    """The functions, with everything in so few fields."""
    code = "\n".join(RedisClock.FUNCTIONS.source.splitlines()[2:])
    assert f"FIELDS = {FIELDS}" in code
    return named(code.replace(f"FIELDS = {FIELDS}", f"FIELDS = {fields}"))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place


@pytest.fixture
async def clock(place: Place) -> RedisClock:
    clock = RedisClock(place, START)
    await clock.advance(0)
    return clock


@pytest.fixture(params=[1, 3, 50])
async def queue(request: pytest.FixtureRequest, place: Place, clock: RedisClock) -> AsyncIterator[RedisQueue]:  # noqa: ARG001 -- it has to go
    async with await RedisQueue.open(place.url, functions=crowded(request.param)) as queue:
        yield queue


async def apply(queue: RedisQueue, *changes: MetadataChange) -> None:
    await queue.put(changes)
    assert await queue.settle([finished(each) for each in await claim(queue, 1_000)], remember=True) == []


def dated(number: int, as_of: float) -> MetadataChange:
    return MetadataChange(f"c-{number}", {"label": "x"}, change_id=f"{number}-{as_of}", as_of=as_of)


async def fields_of(place: Place, memory: str) -> dict[bytes, bytes]:
    return await place.client.hgetall(place.base + memory)  # type: ignore[return-value]  # as the driver has it


async def known(queue: RedisQueue, numbers: range, as_of: float) -> set[int]:
    """Those whose change_ids are remembered: the others can be claimed."""
    await queue.put([dated(number, as_of) for number in numbers])
    claims = await claim(queue, 10_000)
    await queue.settle([finished(each) for each in claims])
    return set(numbers) - {int(each.completion_id.removeprefix("c-")) for each in claims}


async def test_each_is_found_among_many_and_no_other(queue: RedisQueue) -> None:
    await apply(queue, *[dated(number, 100.0 + number) for number in range(300)])
    await apply(queue, *[dated(number, 1_000.0) for number in range(0, 300, 7)])

    await queue.put([MetadataChange(f"c-{number}", {"label": "x"}, as_of=1.0) for number in range(-50, 300)])
    newest = {each.completion_id: each.newest_as_of for each in await claim(queue, 1_000)}

    expected: dict[str, float | None] = {f"c-{number}": None for number in range(-50, 0)}
    expected |= {f"c-{number}": 1_000.0 if number % 7 == 0 else 100.0 + number for number in range(300)}
    assert newest == expected
    stored = await queue.put([dated(number, 1_000.0) for number in range(300)])
    assert stored.duplicates == len(range(0, 300, 7))


async def test_what_is_old_goes_and_what_was_refreshed_stays(
    place: Place, queue: RedisQueue, clock: RedisClock
) -> None:
    await apply(queue, *[dated(number, 1.0) for number in range(100)])
    await clock.advance(3 * DAY)
    await apply(queue, *[dated(number, 2.0) for number in range(0, 100, 2)])
    await clock.advance(5 * DAY)

    gone = [await queue.forget(7 * DAY, most=30) for _ in range(9)]

    assert (sum(gone), max(gone), gone[-1]) == (150, 60, 0)
    assert await known(queue, range(100), 2.0) == set(range(0, 100, 2))
    assert await known(queue, range(100), 1.0) == set()
    for memory in ("settled", "newest"):
        assert (await fields_of(place, memory))[b"count"] == b"50"
    await clock.advance(30 * DAY)
    assert await queue.forget(7 * DAY, most=1_000) == 100
    assert await queue.forget(7 * DAY, most=1_000) == 0


async def test_of_too_many_the_oldest_go(place: Place, clock: RedisClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3_000)
    async with await RedisQueue.open(place.url, functions=crowded(50)) as queue:
        for hour in range(40):
            await apply(queue, *[dated(hour * 100 + number, 1.0) for number in range(100)])
            await clock.advance(3_600)

        gone = [await queue.forget(7 * DAY, most=400) for _ in range(7)]

        assert gone[-1] == 0
        left = await known(queue, range(4_000), 1.0)
        assert left == set(range(min(left), 4_000))  # none of the newest is missing
        for memory in ("settled", "newest"):
            count = int((await fields_of(place, memory))[b"count"])
            assert 2_800 <= count <= 3_000


async def test_a_mark_within_other_entries_is_no_entry(place: Place, queue: RedisQueue) -> None:
    await apply(queue, dated(1, 1.0))
    [(field, entry)] = [each for each in (await fields_of(place, "settled")).items() if each[0].isdigit()]
    mark = entry[:6]
    shifted = b"\0\0\0" + mark + b"\0"
    await place.client.hset(f"{place.base}settled", field.decode(), shifted)

    assert (await queue.put(dated(1, 1.0))).added == 1


async def test_nothing_is_kept_of_changes_that_carry_nothing(place: Place, queue: RedisQueue) -> None:
    await apply(queue, change("c-1"), change("c-2"))

    keys = {key.decode().removeprefix(place.base) for key in await place.keys()}
    assert not keys & {"settled", "newest", "batch", "batches", "batches:finished", "urgent", "urgent:changes"}


async def test_memory_that_was_evicted_is_begun_anew(place: Place, queue: RedisQueue, clock: RedisClock) -> None:
    await apply(queue, dated(1, 5.0))
    await place.client.delete(f"{place.base}settled", f"{place.base}newest")

    assert await known(queue, range(1, 2), 5.0) == set()
    await apply(queue, dated(1, 3.0))
    await queue.put(dated(1, 1.0))
    [claimed] = await claim(queue)
    assert claimed.newest_as_of == 3.0
    await clock.advance(9 * DAY)
    assert await queue.forget(7 * DAY, most=10) == 2
