"""Records of finished changes in SQLite are bounded in number and time, and deleted in small steps."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.queue.conformance.backends import Clock
from tests.queue.helpers import change, claim, finished
from worker.changes import MetadataChange
from worker.queue.sqlite import SqliteQueue, remembered
from worker.queue.sqlite.clock import Clocks

HOUR = 3_600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteQueue]:
    clocks = Clocks(clock, clock, "boot")
    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db", clocks=clocks) as queue:
        yield queue


async def apply(queue: SqliteQueue, changes: Sequence[MetadataChange]) -> None:
    await queue.put(changes)
    assert await queue.settle([finished(each) for each in await claim(queue, 10_000)], remember=True) == []


async def known(queue: SqliteQueue, change_ids: Sequence[str]) -> list[str]:
    found = await queue._writer.read(lambda connection: remembered.settled(connection, change_ids))
    return [change_ids[position] for position in sorted(found)]


async def generations(queue: SqliteQueue, kind: str) -> list[tuple[Any, ...]]:
    """Number, size and how far it is forgotten, of each."""
    sql = "SELECT number, size, swept IS NOT NULL FROM generation WHERE kind = ? ORDER BY number"
    return await queue._writer.read(lambda connection: connection.execute(sql, (kind,)).fetchall())


def ids(first: int, count: int) -> list[str]:
    return [f"id-{number}" for number in range(first, first + count)]


def test_ids_that_differ_in_their_last_character_lie_side_by_side_and_apart() -> None:
    siblings = [f"order-12{last}" for last in "0123456789abcXYZ-~"]
    places = [remembered.place_of(each) for each in siblings]
    others = ("x", "order-130", "order-12é", "order-12\u01e9", "order-12i\u0301")
    strangers = [remembered.place_of(each) for each in others]

    assert len({*places, *strangers}) == len(siblings) + len(others)
    assert max(places) - min(places) < 128
    assert all(0 <= place < 2**63 for place in (*places, *strangers))
    assert all(abs(place - places[0]) > 128 for place in strangers)


async def test_there_is_no_more_than_so_many_and_the_oldest_go(
    queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MAX_REMEMBERED", 160)
    for first in range(0, 200, 10):
        await apply(queue, [change(f"c-{each}", change_id=each) for each in ids(first, 10)])

    gone = [await queue.forget(24 * HOUR, most=15) for _ in range(5)]

    assert gone == [15, 15, 10, 0, 0]
    assert await known(queue, ids(0, 200)) == ids(40, 160)
    assert (await queue.put([change(f"c-{each}", change_id=each) for each in ids(0, 200)])).added == 40


async def test_what_goes_by_its_age_goes_in_pieces_and_what_comes_meanwhile_stays(
    queue: SqliteQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_LOOKED_AT", 7)
    await apply(queue, [change(f"c-{each}", change_id=each) for each in ids(0, 50)])
    await clock.advance(600)

    assert await queue.forget(300, most=20) == 20
    assert await generations(queue, "settled") == [(1, 30, 1)]
    await apply(queue, [change(f"d-{each}", change_id=each) for each in ids(100, 10)])
    assert await generations(queue, "settled") == [(1, 30, 1), (2, 10, 0)]
    assert await queue.forget(300, most=20) == 20
    assert await queue.forget(300, most=20) == 10
    assert await queue.forget(300, most=20) == 0

    assert await generations(queue, "settled") == [(2, 10, 0)]
    assert await known(queue, [*ids(0, 50), *ids(100, 10)]) == ids(100, 10)


async def test_a_generation_ends_after_an_hour_or_when_it_is_full(
    queue: SqliteQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MAX_REMEMBERED", 160)
    for seconds in (0.0, HOUR - 1, 2.0, HOUR - 1):
        await clock.advance(seconds)
        await apply(queue, [change(f"c-{clock.now}", change_id=f"{clock.now}")])
    assert await generations(queue, "settled") == [(1, 2, 0), (2, 2, 0)]

    await apply(queue, [change(f"c-{each}", change_id=each) for each in ids(0, 9)])
    await apply(queue, [change("c", change_id="last")])
    assert await generations(queue, "settled") == [(1, 2, 0), (2, 11, 0), (3, 1, 0)]


async def test_a_completion_that_is_dated_again_counts_once_and_stays(queue: SqliteQueue, clock: Clock) -> None:
    for as_of in range(1, 4):
        await apply(queue, [MetadataChange(f"c-{number}", {"a": "b"}, as_of=float(as_of)) for number in range(5)])
        await apply(queue, [MetadataChange(f"only-{as_of}", {"a": "b"}, as_of=float(as_of))])
        await clock.advance(2 * HOUR)
    assert await generations(queue, "newest") == [(1, 6, 0), (2, 1, 0), (3, 1, 0)]

    assert await queue.forget(3 * HOUR, most=100) == 2

    # Of the first generation five are left, which count with the one that they were written in since.
    assert await generations(queue, "newest") == [(3, 6, 0)]
    await queue.put([MetadataChange(f"c-{number}", {"a": "b"}, as_of=1.0) for number in range(5)])
    assert {each.newest_as_of for each in await claim(queue)} == {3.0}
