"""If counting would take long, a status has estimates, and says so."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.queue.helpers import changes, claim, failed
from tests.queue.postgres_server import administer, new_database
from tests.queue.redis_server import running
from worker.queue import QueueStatus, Store, open_queue
from worker.queue.postgres import status
from worker.queue.redis import queue as redis_queue

WAITING, IN_FLIGHT, DUE = 3_000, 500, 1_500


async def fill(queue: Store) -> QueueStatus:
    """Two changes each of many completions, some of them waiting, leased or due; returns the status."""
    names = [f"c-{number}" for number in range(WAITING + IN_FLIGHT + DUE)]
    await queue.put([each for name in names for each in changes(name, "ab")])
    while (await queue.status()).waiting < 2 * WAITING:
        await queue.settle([failed(claimed) for claimed in await claim(queue, 1_000)])
    await claim(queue, IN_FLIGHT)
    return await queue.status()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_postgresql_asks_its_planner(url: str, monkeypatch: pytest.MonkeyPatch, statistics: str) -> None:
    async with open_queue(url) as queue:
        exact = await fill(queue)
        assert (exact.pending, exact.waiting, exact.in_flight, exact.approximate) == (10_000, 6_000, 1_000, False)
        if statistics == "fresh":
            await administer(url, "ANALYZE")
        monkeypatch.setattr(status, "_MOST_COUNTED", 1_000)
        about = await queue.status()
        assert about.approximate
        assert about.pending == pytest.approx(exact.pending, rel=0.01 if statistics == "fresh" else 0.6)
        assert 1_000 <= about.waiting + about.in_flight <= about.pending
        assert about.oldest_pending_seconds is not None

        monkeypatch.setattr(status, "_MOST_COUNTED", 10_001)
        assert replace(await queue.status(), oldest_pending_seconds=0) == replace(exact, oldest_pending_seconds=0)


async def test_redis_looks_at_the_latest_of_what_is_due_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as server:
        async with open_queue(server.url()) as queue:
            exact = await fill(queue)
            assert (exact.pending, exact.waiting, exact.in_flight, exact.approximate) == (10_000, 6_000, 1_000, False)
            monkeypatch.setattr(redis_queue, "_MOST_LOOKED_AT", 1_000)
            about = await queue.status()

    assert about.approximate
    assert (about.pending, about.waiting + about.in_flight) == (10_000, 7_000)


async def test_sqlite_counts_in_no_time_and_estimates_nothing(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        status = await fill(queue)

    assert (status.pending, status.waiting, status.in_flight, status.approximate) == (10_000, 6_000, 1_000, False)
