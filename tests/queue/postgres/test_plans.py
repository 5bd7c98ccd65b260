"""A call's cost does not grow with the backlog: PostgreSQL's plan for each statement, and its row counts."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, cast

import pytest
from msgspec import structs

from tests.queue.conformance.backends import Clock
from tests.queue.helpers import LEASE_SECONDS, Ending, change, claim, died, failed, finished, numbers
from tests.queue.postgres_server import connected, new_database
from worker.changes import MetadataChange
from worker.queue import (
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CLAIM,
    DeadSelection,
    PendingSelection,
    Place,
    Revived,
)
from worker.queue.base import Part, Stretch
from worker.queue.batch import EVERYTHING, Terms
from worker.queue.postgres import (
    PostgresQueue,
    batches,
    letters,
    notes,
    operations,
    pending,
    putting,
    remembered,
    status,
)
from worker.queue.postgres.confirmed import LogIndexWithGaps
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.floor import Floor
from worker.queue.rows import MIDDLE_STEPS
from worker.queue.statements import read_statements

BACKLOG = 30_000
BATCH = 100
FILL_TARGETS = """
    INSERT INTO metasync.completion (completion_id, target)
    SELECT 'c-' || i, i
    FROM generate_series(1, {backlog}) AS i
    ORDER BY md5(i::text);
    SELECT setval('metasync.completion_target_seq', {backlog});
    INSERT INTO metasync.target (number, completion_id, visible_at)
    SELECT i, 'c-' || i, statement_timestamp() - interval '1 hour' + i * interval '1 millisecond'
    FROM generate_series(1, {backlog}) AS i
    ORDER BY md5(i::text); -- neighbours in time are none on disk
"""
FILL_OTHERS = """
    INSERT INTO metasync.change (target, change_id, mode, metadata, enqueued_at, batch)
    SELECT i % {backlog} + 1, 'line-' || i, 'merge', '{{"label": "x"}}', clock_timestamp(), i % 10 + 1
    FROM generate_series(1, 2 * {backlog}) AS i;
    INSERT INTO metasync.batch (name, created_at) SELECT 'b-' || i, now() FROM generate_series(1, 2000) AS i;
    INSERT INTO metasync.batch_part (batch, part, changes, first_change, last_change)
    SELECT number, part, 1, 1, 2 * {backlog} FROM metasync.batch, generate_series(-1, 15) AS part;
    INSERT INTO metasync.batch_put (batch, first_change, last_change, changes, put_at)
    SELECT number, part, part, 1, now() FROM metasync.batch, generate_series(1, 10) AS part;
    INSERT INTO metasync.settled (hash, settled_at)
    SELECT metasync.hash('old-' || i), now() FROM generate_series(1, {backlog}) AS i;
    INSERT INTO metasync.newest (hash, settled_at, as_of)
    SELECT metasync.hash('c-' || i), now(), 0.5 FROM generate_series(1, {backlog}) AS i;
"""
FILL_LETTERS = """
    INSERT INTO metasync.dead_letter (
        completion_id, mode, metadata, enqueued_at, reason, attempts, died_at, batch
    )
    SELECT
        'c-' || i, 'merge', '{{}}', now(), CASE i % 100 WHEN 0 THEN 'invalid' ELSE 'rejected' END, 1, now(),
        'b-' || i % 100 + 1
    FROM generate_series(1, {backlog} / 10) AS i;
"""
FILL = FILL_TARGETS + FILL_OTHERS + FILL_LETTERS


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A database that has never had other pages."""
    async with new_database() as url:
        yield url


class Explaining:
    """A connection that first asks for the plan of each statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.statements = 0
        self.nodes: list[dict[str, Any]] = []

    async def _explain(self, sql: str, *arguments: object) -> None:
        self.statements += 1
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

    async def fetchrow(self, sql: str, *arguments: object) -> Any:
        await self._explain(sql, *arguments)
        return await self._connection.fetchrow(sql, *arguments)


def _nodes(plan: dict[str, Any], above: str = "") -> Iterator[dict[str, Any]]:
    yield plan | {"Above": above}
    for part in plan.get("Plans", []):
        yield from _nodes(part, plan["Node Type"])


def loops_over_sets(nodes: list[dict[str, Any]]) -> list[str]:
    """Return the nodes that run once for each row of another node, without an index condition.

    The settings leave the server only this kind of join. On two sets as long as the batch, it compares each row with
    each.
    """
    found = []
    for node in nodes:
        if node["Node Type"] == "Nested Loop":
            parts = {part["Parent Relationship"]: part for part in node["Plans"]}
            if parts["Outer"]["Plan Rows"] > 1:
                leaves = _leaves(parts["Inner"])
                found += [leaf["Node Type"] for leaf in leaves if not leaf.get("Index Cond")]
    return [kind for kind in found if kind not in {"Result", "Function Scan"}]


def _leaves(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parts = [part for part in plan.get("Plans", []) if part["Parent Relationship"] not in {"InitPlan", "SubPlan"}]
    if not parts:
        yield plan
    for part in parts:
        yield from _leaves(part)


class Counting(Explaining):
    """A connection that first runs each statement, counts its rows, and rolls it back."""

    async def _explain(self, sql: str, *arguments: object) -> None:
        await self._connection.execute("SAVEPOINT before")
        plan = json.loads(await self._connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments))
        await self._connection.execute("ROLLBACK TO before")
        self.nodes += _nodes(plan[0]["Plan"])

    @property
    def most_rows(self) -> float:
        """The most rows of any node, with the rows that it left out."""
        seen = "Actual Rows", "Rows Removed by"
        each = [sum(float(count) for what, count in node.items() if what.startswith(seen)) for node in self.nodes]
        return max(rows * float(node["Actual Loops"]) for rows, node in zip(each, self.nodes, strict=True))


async def everything(connection: Connection) -> None:
    """Make every call of a queue except counts, on a connection that explains."""
    await putting.put(connection, [change(f"c-{i}", change_id=f"line-{i}") for i in range(0, 200, 7)], Terms())
    await putting.put(connection, [change(f"new-{i}") for i in range(100)], Terms())
    claims = (await operations.claim(connection, BATCH, floor=None, lease_seconds=60, owner="worker")).claims
    assert len(claims) == BATCH
    places: tuple[Place, ...] = ("middle", "newest")
    for place in places:
        probe = await operations.claim(connection, 1, floor=None, lease_seconds=60, owner="worker", place=place)
        assert len(probe.claims) == 1
    await operations.extend(connection, claims, lease_seconds=LEASE_SECONDS)
    await operations.release(connection, claims[:10])
    endings: list[Ending] = [finished, died, failed]
    settlements = [structs.replace(endings[i % 3](claimed), confirmed={}) for i, claimed in enumerate(claims)]
    await operations.settle(connection, settlements, keep_seconds=60)
    log = LogIndexWithGaps(60)
    await putting.put(connection, [change(claims[12].completion_id)], Terms())
    again = await operations.claim(
        connection, 1, floor=None, lease_seconds=60, owner="worker", place="newest", log=log, confirmed_seconds=60
    )
    assert [claimed.confirmed for claimed in again.claims] == [{}]
    await operations.next_due_seconds(connection, None, None)
    await status.leases(connection)
    await urgent_and_remembered(connection)
    newest = (await letters.read(connection, Stretch(DeadSelection(), 0, 2**53))).newest
    for selection in (
        DeadSelection(),
        DeadSelection(numbers=[newest, 7, 5]),
        DeadSelection(completion_id="c-7"),
        DeadSelection(reason="invalid"),
        DeadSelection(batch="b-1"),
        DeadSelection(older_than_seconds=1.0),
    ):
        await letters.read(connection, Stretch(selection, 0, newest))
    await letters.retry(connection, Stretch(DeadSelection(reason="invalid"), 0, newest))
    await letters.retry(connection, Stretch(DeadSelection(batch="b-1"), 0, newest))
    await letters.purge(connection, Stretch(DeadSelection(numbers=[newest, 5]), 0, newest))
    for wanted in (EVERYTHING, PendingSelection(completion_id="c-7", batch="b-7"), PendingSelection(batch="b-1")):
        found, at = await pending.read(connection, wanted, None)
        while at is not None and not found:  # a piece of a batch's range may hold none of its changes
            found, at = await pending.read(connection, wanted, at)
        assert found, wanted
    for wanted in (
        PendingSelection(batch="b-1"),
        PendingSelection(completion_id="c-21000"),
        PendingSelection(change_id="line-24000"),
    ):
        assert (await pending.withdraw(connection, wanted, None))[0].withdrawn
    await batches.read(connection, "b-1")
    await notes.write(connection, "name", "text")


async def urgent_and_remembered(connection: Connection) -> None:
    """Mark a few as urgent and remember a few, on a connection that explains."""
    dated = [MetadataChange(f"c-{27_000 + i}", {}, change_id=f"urgent-{i}", as_of=float(i)) for i in range(BATCH)]
    await putting.put(connection, dated, Terms("b-1", urgent=True))
    claims = (
        await operations.claim(connection, BATCH, floor=None, lease_seconds=60, owner="worker", place="urgent")
    ).claims
    assert len(claims) == BATCH
    await operations.settle(connection, [finished(claimed) for claimed in claims], remember=True)
    await putting.put(connection, [*dated, MetadataChange(dated[0].completion_id, {}, as_of=0.0)], Terms("b-2"))
    await operations.claim(connection, 1, floor=None, lease_seconds=60, owner="worker", place="newest")
    await remembered.forget(connection, 1.0, 10)


TABLES = ("completion", "target", "change", "batch", "batch_part", "batch_put", "settled", "newest", "dead_letter")


async def leave_uncounted(admin: Connection) -> None:
    """Turn off the server's own statistics."""
    for table in TABLES:
        await admin.execute(f"ALTER TABLE metasync.{table} SET (autovacuum_enabled = off)")


async def empty_with_pages(admin: Connection) -> None:
    """Make the server find the tables empty, without giving their pages back.

    From then on it takes any number of pages for empty, until a vacuum or an ANALYZE finds otherwise.
    """
    await admin.execute(FILL.format(backlog=10_000))
    for table in TABLES:
        await admin.execute(f"DELETE FROM metasync.{table}")  # noqa: S608 -- our own names
        await admin.execute(f"VACUUM (TRUNCATE off, INDEX_CLEANUP on) metasync.{table}")
    for table, column in (("change", "id"), ("batch", "number"), ("dead_letter", "number")):
        await admin.execute(f"ALTER TABLE metasync.{table} ALTER {column} RESTART")
    pages = "SELECT count(*) FROM pg_class WHERE reltuples = 0 AND relpages > 10 AND relname = ANY ($1::text[])"
    assert await admin.fetchval(pages, ["completion", "target", "change", "settled", "newest", "dead_letter"]) == 6


@pytest.mark.parametrize("counted_when", ["never", "empty", "full", "emptied"])
async def test_no_statement_reads_a_whole_table_that_the_planner_takes_for_empty(
    queue: PostgresQueue, admin: Connection, counted_when: str
) -> None:
    await leave_uncounted(admin)
    if counted_when == "empty":
        await admin.execute("ANALYZE")
    if counted_when == "emptied":
        await empty_with_pages(admin)
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
    # A scan of an index without a condition is as long as the table, unless only the first rows are needed.
    assert [node for node in scans if not node.get("Index Cond") and node["Above"] != "Limit"] == []
    assert loops_over_sets(nodes) == []


async def thousands(connection: Connection, size: int) -> None:
    """Put, claim, settle, withdraw and retry so many, on a connection that counts."""
    changes = [change(f"t-{i}", change_id=f"t-{i}") for i in range(size)]
    assert (await putting.put(connection, changes, Terms("t"))).added == size
    assert (await putting.put(connection, changes, Terms("t"))).added == 0
    assert (await putting.put(connection, [change(f"u-{i}") for i in range(size)], Terms(urgent=True))).added == size
    assert (await putting.put(connection, [change(f"u-{i}") for i in range(size)], Terms(urgent=True))).added == size
    places: tuple[Place, ...] = ("oldest", "urgent")
    for place in places:
        claimed = await operations.claim(connection, size, floor=None, lease_seconds=60, owner="worker", place=place)
        claims = claimed.claims
        assert len(claims) == size
        assert await operations.extend(connection, claims, lease_seconds=60) == []
        await operations.release(connection, claims)
        claimed = await operations.claim(connection, size, floor=None, lease_seconds=60, owner="worker", place=place)
        endings: list[Ending] = [finished, died, failed, died]
        settlements = [endings[i % 4](each) for i, each in enumerate(claimed.claims)]
        settled = await operations.settle(connection, settlements, keep_seconds=60, remember=True)
        assert len(settled.valid) == size
    retried, last = 0, cast("int | None", 0)
    while last is not None:
        part = await letters.retry(connection, Stretch(DeadSelection(), last, 2**53))
        retried, last = retried + part.result.retried, part.last
    assert retried == size // 2 + size
    _, at = await pending.withdraw(connection, PendingSelection(batch="t"), None)
    while at is not None:
        _, at = await pending.withdraw(connection, PendingSelection(batch="t"), at)
    await remembered.forget(connection, -1.0, size)


async def test_the_cost_of_thousands_is_linear_though_the_planner_takes_the_tables_for_empty(
    url: str, admin: Connection
) -> None:
    await leave_uncounted(admin)
    await empty_with_pages(admin)
    size = 1_000

    async def count(connection: Connection) -> float:
        counting = Counting(connection)
        await thousands(cast("Connection", counting), size)
        return counting.most_rows

    async with await PostgresQueue.open(url, timeout_seconds=120) as queue:
        assert await queue._connections.transact(count) <= 5 * size


async def test_a_piece_of_letters_is_retried_in_linear_time(queue: PostgresQueue, admin: Connection) -> None:
    await admin.execute(FILL.format(backlog=10_000) + FILL_LETTERS.format(backlog=10 * letters.BULK))

    async def retry(connection: Connection) -> tuple[Explaining, Part[Revived]]:
        explaining = Explaining(connection)
        stretch = Stretch(DeadSelection(), 0, 2**53)
        return explaining, await letters.retry(cast("Connection", explaining), stretch)

    explaining, part = await queue._connections.transact(retry)

    assert part.result == Revived(letters.BULK, 0)
    assert explaining.statements < 10
    assert loops_over_sets(explaining.nodes) == []


async def buffers(queue: PostgresQueue, connection: Connection, floor: datetime | None) -> int:
    """Count the pages that a claim touches, without keeping it."""
    sql = read_statements("worker.queue.postgres", "claim")
    await connection.execute(queue._connections.begin_sql())
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    leased = json.loads(
        await connection.fetchval(explain + sql["lease"].format(kind="NOT urgent"), BATCH, floor, 60.0, "worker")
    )
    held = await connection.fetch("SELECT number, completion_id FROM metasync.target WHERE lease IS NOT NULL")
    targets, ids = [row["number"] for row in held], [row["completion_id"] for row in held]
    found = json.loads(
        await connection.fetchval(
            explain + sql["changes"], targets, ids, MAX_CHANGES_PER_CLAIM, 10_001, MAX_BYTES_PER_CALL
        )
    )
    await connection.execute("ROLLBACK")
    assert leased[0]["Plan"]["Actual Rows"] == len(ids) + 1 == BATCH + 1  # and what was looked at
    return sum(plan[0]["Plan"][f"Shared {what} Blocks"] for plan in (leased, found) for what in ("Hit", "Read"))


async def test_a_claim_touches_a_bounded_number_of_pages(queue: PostgresQueue, admin: Connection) -> None:
    touched = []
    await leave_uncounted(admin)  # in the middle of the filling, the server would find them empty
    for backlog in (1_000, BACKLOG):
        await admin.execute(
            "TRUNCATE metasync.completion, metasync.target, metasync.change, metasync.dead_letter, metasync.batch,"
            " metasync.batch_part, metasync.batch_put, metasync.settled, metasync.newest RESTART IDENTITY"
        )
        await admin.execute(FILL.format(backlog=backlog))
        await buffers(queue, admin, None)  # the hint bits, which are written once for each row, are written now
        touched.append(await buffers(queue, admin, None))
    few, many = touched

    assert many < 1.5 * few
    assert many < 40 * BATCH


@pytest.mark.parametrize("visible_at", ["visible_at", "'2024-01-01'"])
async def test_a_probe_of_the_middle_touches_a_bounded_number_of_pages(
    queue: PostgresQueue, admin: Connection, visible_at: str
) -> None:
    backlog = 100_000  # an index of as many has more pages than a probe may touch
    await admin.execute(FILL_TARGETS.format(backlog=backlog))
    await admin.execute(f"UPDATE metasync.target SET visible_at = {visible_at}")  # noqa: S608 -- our own words
    await admin.execute("VACUUM metasync.target")
    sql = read_statements("worker.queue.postgres", "claim")["middle"]
    await admin.execute(queue._connections.begin_sql())
    plan = json.loads(await admin.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", None, MIDDLE_STEPS))
    [first, *_] = [row["number"] for row in await admin.fetch(sql, None, MIDDLE_STEPS)]

    assert 0.3 * backlog < first < 0.7 * backlog
    assert sum(plan[0]["Plan"][f"Shared {what} Blocks"] for what in ("Hit", "Read")) < 500


async def test_a_claim_does_not_read_deleted_rows_again_while_an_old_transaction_is_open(
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
    assert without_floor > 5 * before  # because of the floor


async def enqueueing(producer: Connection) -> int:
    """Enqueue for a completion with changes, and count the pages that this touches."""
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT metasync_enqueue('c-1', '{}')"
    plan = json.loads(await producer.fetchval(explain))[0]["Plan"]
    return sum(int(plan[f"Shared {what} Blocks"]) for what in ("Hit", "Read"))


MANY = "SELECT metasync_enqueue('c-1', '{}') FROM generate_series(1, 2000)"


async def test_many_enqueues_for_one_completion_in_one_transaction_take_linear_time(
    url: str, queue: PostgresQueue
) -> None:
    async with connected(url) as producer, producer.transaction():
        await producer.execute("SELECT metasync_enqueue('c-1', '{}')")
        first = await enqueueing(producer)
        await producer.execute(MANY)
        assert await enqueueing(producer) < 1.5 * first

    assert (await queue.status()).pending == 2_003


async def test_producers_of_one_completion_do_not_read_old_versions_while_an_old_transaction_is_open(
    url: str, queue: PostgresQueue, admin: Connection
) -> None:
    await admin.execute("SELECT metasync_enqueue('c-1', '{}')")
    async with connected(url) as somebody:
        await somebody.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM metasync.change")
        first = await enqueueing(admin)
        for _ in range(500):
            await admin.execute("SELECT metasync_enqueue('c-1', '{}')")
        assert await enqueueing(admin) < 1.5 * first

    assert (await queue.status()).pending == 503


async def test_an_idle_worker_does_not_read_deleted_rows_again_while_an_old_transaction_is_open(
    url: str, queue: PostgresQueue, admin: Connection
) -> None:
    async with connected(url) as somebody:
        await somebody.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM metasync.change")
        await admin.execute(FILL.format(backlog=30_000))
        await admin.execute("DELETE FROM metasync.completion; DELETE FROM metasync.target; DELETE FROM metasync.change")
        queue._floor = Floor(Clock())  # for which no time passes
        assert await claim(queue) == []
        floor = queue._floor.visible_at
        sql = read_statements("worker.queue.postgres", "status")["next_due"]
        await admin.execute(queue._connections.begin_sql())
        touched = []
        for since in (floor, None):
            plan = json.loads(await admin.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", since, None))[0][
                "Plan"
            ]
            touched.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        idle, everywhere = touched

    assert idle < 20
    assert everywhere > 1_000
