"""What a call costs does not grow with the backlog: how PostgreSQL goes about each statement, and how far it gets."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, cast

import pytest

from tests.queue.helpers import LEASE_SECONDS, Ending, change, claim, died, finished, numbers
from tests.queue.postgres_server import connected, new_database
from worker.queue.base import MAX_CHANGES_PER_CLAIM, DeadSelection, Settlement
from worker.queue.postgres import PostgresQueue, letters, operations
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.statements import statements

BACKLOG = 100_000
BATCH = 100
FILL = """
    INSERT INTO metasync.completion (completion_id, target) OVERRIDING SYSTEM VALUE
    SELECT 'c-' || i, i
    FROM generate_series(1, {backlog}) AS i
    ORDER BY md5(i::text);
    SELECT setval('metasync.completion_target_seq', {backlog});
    INSERT INTO metasync.target (number, completion_id, visible_at)
    SELECT i, 'c-' || i, clock_timestamp() - interval '1 hour' + i * interval '1 millisecond'
    FROM generate_series(1, {backlog}) AS i
    ORDER BY md5(i::text); -- neighbours in time are none on disk
    INSERT INTO metasync.change (target, change_id, mode, metadata, enqueued_at)
    SELECT i % {backlog} + 1, 'line-' || i, 'merge', '{{"label": "x"}}', clock_timestamp()
    FROM generate_series(1, 2 * {backlog}) AS i;
    INSERT INTO metasync.dead_letter (
        completion_id, mode, metadata, enqueued_at, reason, attempts, died_at
    )
    SELECT 'c-' || i, 'merge', '{{}}', now(), CASE i % 100 WHEN 0 THEN 'invalid' ELSE 'rejected' END, 1, now()
    FROM generate_series(1, {backlog} / 10) AS i;
"""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[PostgresQueue]:
    async with await PostgresQueue.open(url) as queue:
        yield queue


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection:
        yield connection


class Explaining:
    """A connection that first asks how the server would go about each statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.nodes: list[dict[str, Any]] = []

    async def _explain(self, sql: str, *arguments: object) -> None:
        plan = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments))
        self.nodes += _nodes(plan[0]["Plan"])

    async def execute(self, sql: str, *arguments: object) -> str:
        await self._explain(sql, *arguments)
        return await self._connection.execute(sql, *arguments)

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        await self._explain(sql, *arguments)
        return await self._connection.fetch(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        await self._explain(sql, *arguments)
        return await self._connection.fetchval(sql, *arguments)


def _nodes(plan: dict[str, Any], above: str = "") -> Iterator[dict[str, Any]]:
    yield plan | {"Above": above}
    for part in plan.get("Plans", []):
        yield from _nodes(part, plan["Node Type"])


async def everything(connection: Connection) -> None:
    """Do all that a queue does but count, on a connection that explains."""
    await operations.put(connection, [change(f"c-{i}", change_id=f"line-{i}") for i in range(0, 200, 7)])
    await operations.put(connection, [change(f"new-{i}") for i in range(100)])
    claims = (await operations.claim(connection, BATCH, floor=None, lease_seconds=60, owner="worker")).claims
    assert len(claims) == BATCH
    await operations.extend(connection, claims, lease_seconds=LEASE_SECONDS)
    await operations.release(connection, claims[:10])
    endings: list[Ending] = [finished, died, lambda claimed: Settlement(claimed, delay_seconds=5, attempts=1)]
    await operations.settle(connection, [endings[i % 3](claimed) for i, claimed in enumerate(claims)])
    await operations.next_due_seconds(connection)
    newest = await letters.newest(connection)
    for selection in (
        DeadSelection(),
        DeadSelection(numbers=[newest, 7, 5]),
        DeadSelection(completion_id="c-7"),
        DeadSelection(reason="invalid"),
    ):
        await letters.read_page(connection, selection, after=0)
    await letters.retry(connection, DeadSelection(reason="invalid"), after=0, until=newest)
    await letters.purge(connection, DeadSelection(numbers=[newest, 5]), after=0, until=newest)
    await operations.write_note(connection, "name", "text")


@pytest.mark.parametrize("counted_when", ["never", "empty", "full"])
async def test_no_statement_reads_a_whole_table_even_if_it_was_empty_when_it_was_last_counted(
    queue: PostgresQueue, admin: Connection, counted_when: str
) -> None:
    for table in ("completion", "target", "change"):
        await admin.execute(f"ALTER TABLE metasync.{table} SET (autovacuum_enabled = off)")
    if counted_when == "empty":
        await admin.execute("ANALYZE")
    await admin.execute(FILL.format(backlog=BACKLOG))
    if counted_when == "full":
        await admin.execute("ANALYZE")

    async def explain(connection: Connection) -> list[dict[str, Any]]:
        explaining = Explaining(connection)
        await everything(cast("Connection", explaining))
        return explaining.nodes

    nodes = await queue._connections.transact(explain)

    assert len(nodes) > 100
    scans = [node for node in nodes if node.get("Relation Name") and node["Node Type"].endswith("Scan")]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    # An index that is gone through without a condition is as long as the table, unless it is the first rows that count.
    assert [node for node in scans if not node.get("Index Cond") and node["Above"] != "Limit"] == []


async def buffers(queue: PostgresQueue, connection: Connection, floor: datetime | None) -> int:
    """Count the pages that a claim touches, without keeping it."""
    sql = statements("claim")
    await connection.execute(queue._connections._begin)
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    leased = json.loads(await connection.fetchval(explain + sql["lease"], BATCH, floor, 60.0, "worker"))
    held = await connection.fetch("SELECT number, completion_id FROM metasync.target WHERE lease IS NOT NULL")
    targets, ids = [row["number"] for row in held], [row["completion_id"] for row in held]
    found = json.loads(await connection.fetchval(explain + sql["changes"], targets, ids, MAX_CHANGES_PER_CLAIM, 10_000))
    await connection.execute("ROLLBACK")
    assert leased[0]["Plan"]["Actual Rows"] == len(ids) == BATCH
    return sum(plan[0]["Plan"][f"Shared {what} Blocks"] for plan in (leased, found) for what in ("Hit", "Read"))


async def test_a_claim_touches_a_bounded_number_of_pages(queue: PostgresQueue, admin: Connection) -> None:
    touched = []
    for backlog in (1_000, BACKLOG):
        await admin.execute("TRUNCATE metasync.completion, metasync.target, metasync.change, metasync.dead_letter")
        await admin.execute(FILL.format(backlog=backlog))
        await buffers(queue, admin, None)  # what is said once of each row, that it is committed, is said now
        touched.append(await buffers(queue, admin, None))
    few, many = touched

    assert many < 1.5 * few
    assert many < 40 * BATCH


async def test_a_claim_does_not_look_again_at_what_is_gone_while_an_old_transaction_is_open(
    url: str, queue: PostgresQueue, admin: Connection
) -> None:
    await admin.execute(FILL.format(backlog=30_000))
    before = await buffers(queue, admin, None)
    async with connected(url) as somebody:
        await somebody.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM metasync.change")
        for _ in range(40):
            claims = await claim(queue, 500)
            assert await queue.settle([finished(claimed) for claimed in claims]) == []
        after = await buffers(queue, admin, queue._floor.visible_at)
        without_floor = await buffers(queue, admin, None)

    assert len(numbers(claims[0])) == 2
    assert after < 1.5 * before
    assert without_floor > 5 * before  # it is the floor that does it
