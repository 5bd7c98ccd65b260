"""The log of confirmed maps in PostgreSQL: numbers are assigned before rows are visible."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.queue.conformance.backends import BACKENDS, Backend
from tests.queue.conformance.test_confirmed import LAG_SECONDS, MAP, confirm, told
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import connected, new_database, save
from worker.queue.postgres import PostgresQueue

LATE = """
    INSERT INTO metasync.confirmed (written_at, total, completion_ids, maps)
    VALUES (statement_timestamp(), nextval('metasync.confirmed_total'), '["late"]', '[{"by": "a late one"}]')
"""


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    async with BACKENDS["postgres"](tmp_path) as backend:
        yield backend


@pytest.fixture
def queue(backend: Backend) -> PostgresQueue:
    assert isinstance(backend.queue, PostgresQueue)
    return backend.queue


@pytest.mark.parametrize("read_before", [["c-1"], []])
async def test_a_row_committed_after_a_later_one_was_read_is_still_found(
    queue: PostgresQueue, read_before: list[str]
) -> None:
    for completion_id in read_before:
        await confirm(queue, {completion_id: MAP})
        await told(queue, completion_id)
    async with connected(queue._connections.address.dsn) as other:
        await other.execute("BEGIN")
        await other.execute(LATE)
        await confirm(queue, {"c-2": MAP})
        assert await told(queue, "c-2", "late") == {"c-2": MAP, "late": None}
        assert await told(queue, "c-2", "late") == {"c-2": MAP, "late": None}
        await other.execute("COMMIT")

    assert await told(queue, "c-2", "late") == {"c-2": MAP, "late": {"by": "a late one"}}
    assert queue._log.skipped == []


async def test_missing_numbers_are_asked_for_only_while_they_matter(backend: Backend, queue: PostgresQueue) -> None:
    await confirm(queue, {"c-1": MAP})
    await told(queue, "c-1")
    async with connected(queue._connections.address.dsn) as other:
        await other.execute("BEGIN")
        await other.execute(LATE)
        await other.execute("ROLLBACK")
    await confirm(queue, {"c-1": MAP})
    await told(queue, "c-1")
    assert len(queue._log.skipped) == 1
    await backend.advance(LAG_SECONDS)
    await told(queue, "c-1")

    assert queue._log.skipped == []


async def test_the_log_does_not_grow_and_deleted_rows_are_not_read_again(
    backend: Backend, queue: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.postgres.confirmed._LOOK_BACK", 2)
    for i in range(12):
        await confirm(queue, {f"c-{i}": MAP})
        await backend.advance(LAG_SECONDS / 4)

    async with connected(queue._connections.address.dsn) as other:
        numbers = [row["number"] for row in await other.fetch("SELECT number FROM metasync.confirmed ORDER BY number")]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert queue._log_from > 4


async def test_a_failed_claim_reads_the_log_anew(queue: PostgresQueue) -> None:
    """After a failover, numbers may stand for other rows."""
    await confirm(queue, {"c-1": MAP})
    await told(queue, "c-1")
    async with connected(queue._connections.address.dsn) as other:
        await other.execute("ALTER TABLE metasync.target RENAME TO elsewhere")
        with pytest.raises(Exception, match="schema"):
            await told(queue)
        await other.execute("ALTER TABLE metasync.elsewhere RENAME TO target")

    assert queue._log.last == 0
    assert await told(queue, "c-1") == {"c-1": MAP}


async def test_after_a_failover_the_log_is_read_anew() -> None:
    """The connection was lost while it was idle: no call has failed."""
    async with (
        new_database() as url,
        Network.before(url) as (network, url_behind),
        await PostgresQueue.open(url_behind) as queue,
        await PostgresQueue.open(url) as another,
    ):
        await confirm(queue, {"c-1": MAP})
        put_back = await save(url)
        for completion_id in ("c-2", "c-3"):
            await confirm(queue, {completion_id: MAP})
        await told(queue, "c-1")
        await put_back()
        network.cut()
        while queue._connections._idle and not queue._connections._idle[-1].is_closed():
            await asyncio.sleep(0)
        await queue.status()  # not only the first call on the new connection is of interest
        await confirm(another, {"c-1": {"grade": "B"}})

        assert await told(queue, "c-1") == {"c-1": {"grade": "B"}}


async def test_another_log_behind_open_connections_is_read_anew() -> None:
    """A proxy that pools connections hides a failover, and a restore may leave them open."""
    async with (
        new_database() as url,
        await PostgresQueue.open(url) as queue,
        await PostgresQueue.open(url) as another,
    ):
        await confirm(queue, {"c-1": MAP})
        put_back = await save(url)
        for completion_id in ("c-2", "c-3"):
            await confirm(queue, {completion_id: MAP})
        await told(queue, "c-1")
        await put_back()
        opened = queue._connections.opened
        await confirm(another, {"c-1": {"grade": "B"}})

        assert await told(queue, "c-1") == {"c-1": {"grade": "B"}}
        assert queue._connections.opened == opened
