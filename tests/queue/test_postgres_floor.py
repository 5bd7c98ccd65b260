"""The floor: where a claim begins to look, and when it looks everywhere again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.queue.backends import Clock
from tests.queue.helpers import change, claim
from tests.queue.postgres_server import connected, new_database
from worker.queue import QueueUnusable
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.floor import Floor

EARLY = datetime(2025, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(seconds=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def floor(clock: Clock) -> Floor:
    return Floor(clock)


def test_there_is_none_at_first(floor: Floor) -> None:
    assert floor.visible_at is None
    assert repr(floor) == "<Floor none>"


def test_it_follows_what_is_claimed(floor: Floor) -> None:
    floor.claimed(EARLY, is_full=True)
    assert floor.visible_at == EARLY
    floor.claimed(LATE, is_full=False)
    assert floor.visible_at == LATE
    assert repr(floor) == "<Floor 2025-01-01 00:00:01+00:00>"


def test_it_stays_where_it_is_when_nothing_is_claimed(floor: Floor) -> None:
    floor.claimed(EARLY, is_full=True)
    floor.claimed(None, is_full=False)

    assert floor.visible_at == EARLY


async def test_with_a_backlog_it_is_reset_every_minute(floor: Floor, clock: Clock) -> None:
    await clock.advance(59)
    floor.claimed(EARLY, is_full=True)
    assert floor.visible_at == EARLY
    await clock.advance(1)
    floor.claimed(LATE, is_full=True)
    assert floor.visible_at is None
    floor.claimed(LATE, is_full=True)
    assert floor.visible_at == LATE


async def test_without_a_backlog_it_is_reset_every_second(floor: Floor, clock: Clock) -> None:
    floor.claimed(EARLY, is_full=True)
    await clock.advance(1)
    floor.claimed(None, is_full=False)

    assert floor.visible_at is None


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


async def test_a_target_that_was_locked_when_claims_went_past_it_is_found_again(url: str, clock: Clock) -> None:
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        queue._floor = Floor(clock)
        for completion_id in ("c-1", "c-2", "c-3"):
            await queue.put([change(completion_id)])
        async with somebody.transaction():
            await somebody.execute("SELECT FROM metasync.target WHERE completion_id = 'c-1' FOR UPDATE")
            passed = [claimed.completion_id for _ in range(3) for claimed in await claim(queue, 1)]
            assert passed == ["c-2", "c-3"]

        assert await claim(queue) == []
        await clock.advance(1)
        assert await claim(queue) == []  # this one has let go of the floor
        assert [claimed.completion_id for claimed in await claim(queue)] == ["c-1"]


async def test_a_claim_that_came_to_nothing_lets_go_of_the_floor(url: str) -> None:
    """What it held for a moment, other claims may have gone past."""
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        await queue.put([change("c-1"), change("c-2")])
        assert len(await claim(queue, 1)) == 1
        assert queue._floor.visible_at is not None
        await somebody.execute("ALTER TABLE metasync.target RENAME TO gone")
        with pytest.raises(QueueUnusable):
            await claim(queue, 1)

        assert queue._floor.visible_at is None
