"""The floor: where a claim begins to search, and when it searches everywhere again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tests.queue.conformance.backends import START, Clock
from tests.queue.helpers import about, change, claim, finished
from tests.queue.postgres_server import StoppedClock, connected, new_database
from worker.changes import MetadataChange
from worker.queue import MAX_CHANGES_PER_CLAIM, QueueUnusable, Settlement
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.floor import Effort, Floor, Look

EARLY = datetime(2025, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(seconds=1)
NOW = EARLY + timedelta(hours=1)
SLACK = timedelta(seconds=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def floor(clock: Clock) -> Floor:
    return Floor(clock)


def test_there_is_no_floor_at_first(floor: Floor) -> None:
    assert floor.visible_at is None
    assert repr(floor) == "<Floor none>"


def look(
    oldest: datetime | None,
    *,
    is_full: bool,
    at: datetime = NOW,
    number: int = 100,
    horizon: int = 0,
    running: Sequence[int] = (),
) -> Look:
    """What a claim saw; by default, no transaction was under way."""
    return Look(oldest, is_full, at, number, horizon or number, frozenset(running))


def test_the_floor_follows_the_claims(floor: Floor) -> None:
    floor.claimed(look(EARLY, is_full=True))
    assert floor.visible_at == EARLY
    floor.claimed(look(LATE, is_full=True))
    assert floor.visible_at == LATE
    assert repr(floor) == "<Floor 2025-01-01 00:00:01+00:00>"


@pytest.mark.parametrize("oldest", [None, LATE])
def test_a_claim_that_is_not_full_moves_the_floor_to_now(floor: Floor, oldest: datetime | None) -> None:
    floor.claimed(look(oldest, is_full=False))

    assert floor.visible_at == NOW - SLACK


def test_the_floor_goes_back_when_an_earlier_transaction_ends(floor: Floor) -> None:
    seconds = [NOW + i * timedelta(seconds=1) for i in range(9)]
    floor.claimed(look(None, is_full=False, at=seconds[0], number=10))
    floor.claimed(look(None, is_full=False, at=seconds[1], number=20))
    floor.claimed(look(None, is_full=False, at=seconds[2], number=29, horizon=28, running=[15]))
    floor.claimed(look(None, is_full=False, at=seconds[3], number=40, running=[15, 28]))
    assert floor.visible_at == seconds[3] - SLACK
    floor.claimed(look(None, is_full=False, at=seconds[4], number=50, running=[15]))
    assert floor.visible_at == seconds[1] - SLACK  # 28 began after 20 had
    floor.claimed(look(None, is_full=False, at=seconds[5], number=60, running=[15]))
    assert floor.visible_at == seconds[5] - SLACK
    floor.claimed(look(EARLY, is_full=True, at=seconds[6], number=70, running=[]))
    assert floor.visible_at == EARLY
    floor.claimed(look(None, is_full=False, at=seconds[7], number=80, running=[]))
    assert floor.visible_at == seconds[7] - SLACK


def test_the_floor_is_reset_when_a_forgotten_transaction_ends(floor: Floor) -> None:
    floor.claimed(look(None, is_full=False, number=10, running=[5]))
    floor.claimed(look(None, is_full=False, number=20))

    assert floor.visible_at is None


async def test_slow_looks_take_a_fiftieth_of_the_time(clock: Clock) -> None:
    effort = Effort(clock)
    for seconds in (2.0, 0.2, 7.0):  # a look that was slow once may have had to wait
        assert effort.is_affordable
        with effort.made():
            await clock.advance(seconds)
    assert not effort.is_affordable
    await clock.advance(9)
    assert not effort.is_affordable
    await clock.advance(2)
    assert effort.is_affordable


async def test_fast_looks_may_be_made_at_any_time(clock: Clock) -> None:
    effort = Effort(clock)
    for seconds in (2.0, 0.04, 7.0):
        with effort.made():
            await clock.advance(seconds)

    assert effort.is_affordable


async def test_with_a_backlog_the_floor_is_reset_every_minute(floor: Floor, clock: Clock) -> None:
    await clock.advance(59)
    floor.claimed(look(EARLY, is_full=True))
    assert floor.visible_at == EARLY
    await clock.advance(1)
    floor.claimed(look(LATE, is_full=True))
    assert floor.visible_at is None
    floor.claimed(look(LATE, is_full=True))
    assert floor.visible_at == LATE


async def test_without_a_backlog_the_floor_is_reset_every_second(floor: Floor, clock: Clock) -> None:
    floor.claimed(look(EARLY, is_full=True))
    await clock.advance(1)
    floor.claimed(look(None, is_full=False))

    assert floor.visible_at is None


def test_a_clock_that_goes_back_resets_the_floor(floor: Floor) -> None:
    floor.claimed(look(None, is_full=False, at=NOW))
    floor.met(NOW - SLACK)  # of two concurrent calls, one may be answered later
    assert not floor.is_below(NOW - SLACK)
    floor.met(NOW - 2 * SLACK)
    assert floor.visible_at is None
    assert floor.is_below(NOW - SLACK)
    floor.claimed(look(None, is_full=False, at=NOW - 2 * SLACK))
    assert floor.visible_at == NOW - 3 * SLACK


async def test_a_target_that_was_locked_during_claims_is_claimed_later(url: str, clock: Clock) -> None:
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        queue._floor = Floor(clock)
        assert await claim(queue) == []
        for completion_id in ("c-1", "c-2", "c-3"):
            await queue.put([change(completion_id)])
        await somebody.execute(
            "UPDATE metasync.target SET visible_at = visible_at - interval '1 hour' WHERE completion_id = 'c-1'"
        )
        async with somebody.transaction():
            await somebody.execute("SELECT FROM metasync.target WHERE completion_id = 'c-1' FOR UPDATE")
            passed = [claimed.completion_id for _ in range(3) for claimed in await claim(queue, 1)]
            assert passed == ["c-2", "c-3"]

        assert await claim(queue) == []
        await clock.advance(1)
        assert [claimed.completion_id for claimed in await claim(queue)] == ["c-1"]


async def test_a_failed_claim_resets_the_floor(url: str) -> None:
    """Other claims may have passed over what it held for a moment."""
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        await queue.put([change("c-1"), change("c-2")])
        assert len(await claim(queue, 1)) == 1
        assert queue._floor.visible_at is not None
        await somebody.execute("ALTER TABLE metasync.target RENAME TO gone")
        with pytest.raises(QueueUnusable):
            await claim(queue, 1)

        assert queue._floor.visible_at is None


async def test_a_change_that_is_committed_late_is_found_by_the_next_claim(url: str, clock: Clock) -> None:
    async with await PostgresQueue.open(url) as queue, connected(url) as producer:
        queue._floor = Floor(clock)  # for which no time passes
        async with producer.transaction():
            await producer.execute("SELECT metasync_enqueue('c-late', '{}')")
            await producer.execute("SELECT pg_sleep(1.1)")
            for completion_id in ("c-1", "c-2", "c-3"):
                await queue.put([change(completion_id)])
                assert [claimed.completion_id for claimed in await claim(queue, 2)] == [completion_id]
            assert await claim(queue) == []
        assert [claimed.completion_id for claimed in await claim(queue)] == ["c-late"]


async def test_a_change_put_after_the_clock_went_back_is_claimed_at_once(url: str) -> None:
    async with (
        StoppedClock.stop(url, at=START) as server_clock,
        await PostgresQueue.open(url) as queue,
        await PostgresQueue.open(url) as other,
    ):
        queue._floor = Floor(Clock())  # for which no time passes
        await queue.put([change("c-1")])
        [claimed] = await claim(queue)
        assert await claim(queue) == []
        await server_clock.advance(-30)
        await other.put([change("c-2")])
        assert await queue.settle([Settlement(claimed)]) == []
        await server_clock.advance(20)

        assert await queue.next_due_seconds() == -20
        assert {claimed.completion_id for claimed in await claim(queue)} == {"c-1", "c-2"}


async def test_a_new_connection_resets_the_floor(url: str) -> None:
    """A server that took over may have lost a claim: its targets have been due for long then."""
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        queue._floor = Floor(Clock())  # for which no time passes
        await queue.put([change("c-1")])
        assert len(await claim(queue)) == 1
        assert await claim(queue) == []
        await somebody.execute("UPDATE metasync.target SET visible_at = now() - interval '1 hour', lease = NULL")
        assert await claim(queue) == []
        await somebody.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        assert len(await claim(queue)) == 1


async def test_an_idle_queue_is_read_from_the_floor_on(url: str, clock: Clock) -> None:
    async with await PostgresQueue.open(url) as queue:
        queue._floor = floor = Floor(clock)
        for _ in range(5):
            assert await claim(queue) == []
            assert await queue.next_due_seconds() is None
            assert floor.visible_at is not None  # the next look begins here
        looked = floor.everywhere._ended_at
        await clock.advance(1)
        assert await claim(queue) == []
        assert floor.everywhere._ended_at == looked + 1


@pytest.mark.parametrize("is_affordable", [True, False])
async def test_the_queue_is_reported_empty_only_after_a_look_everywhere(url: str, is_affordable: bool) -> None:  # noqa: FBT001 -- a parameter
    async with await PostgresQueue.open(url) as queue, connected(url) as somebody:
        await queue.put([change("c-1")])
        async with somebody.transaction():
            await somebody.execute("SELECT FROM metasync.target FOR UPDATE")
            await somebody.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 hour'")
        queue._floor.visible_at = datetime.now(UTC)
        if not is_affordable:
            clock = Clock()
            queue._being_sure = Effort(clock)
            for _ in range(3):
                with queue._being_sure.made():
                    await clock.advance(1)

        assert await queue.next_due_seconds() == (about(-3_600) if is_affordable else 1.0)


async def test_changes_beyond_a_claims_limit_are_in_the_next_claim(clock: Clock) -> None:
    large = {f"key-{number:02d}": "v" * 512 for number in range(16)}
    taken = []
    async with new_database() as url, await PostgresQueue.open(url) as queue:
        queue._floor = Floor(clock)  # for which no time passes
        for completion_id in ("c-1", "c-2", "c-3"):
            await queue.put([MetadataChange(completion_id, large) for _ in range(MAX_CHANGES_PER_CLAIM)])
        async with connected(url) as connection:  # long ago, so that they are below the floor by now
            await connection.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 minute'")
        for _ in range(3):
            [claimed] = await claim(queue)
            taken.append(claimed.completion_id)
            await queue.settle([finished(claimed)])

    assert taken == ["c-1", "c-2", "c-3"]
