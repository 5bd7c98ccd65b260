"""What a call costs does not grow with the backlog: how SQLite goes about each statement, and how far it gets."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.queue.helpers import LEASE_SECONDS, Ending, change, changes, claim, died, finished
from worker.queue.base import Claim, DeadSelection, Settlement
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.statements import statements

BACKLOG = 50_000


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
        yield queue


# What is looked at step by step, and not by an index, is what was handed in, or what a LIMIT has cut off before.
_BOUNDED = re.compile(
    r"SCAN (claim|claimed|death|given|kept|selected|json_each|\(subquery-\d+\)) ?(VIRTUAL TABLE.*)?"
    r"|SEARCH .* USING (COVERING INDEX|INDEX|INTEGER PRIMARY KEY|PRIMARY KEY) .*"
    r"|(CO-ROUTINE|MATERIALIZE) \(subquery-\d+\)"
    r"|(CORRELATED )?(LIST|SCALAR) SUBQUERY \d+"
    r"|(REUSE LIST SUBQUERY|CREATE BLOOM FILTER).*"
)
# These look at all of a table's index, or sort, for the reasons given.
_EXCEPTIONS = {
    ("put", "newest"): {"SEARCH change"},  # max(id): the last row
    ("put", "newest_target"): {"SEARCH target"},  # max(number): the last row
    ("put", "count"): {"MATERIALIZE fresh", "USE TEMP B-TREE FOR GROUP BY", "SCAN fresh"},  # of the new changes
    ("dead", "newest"): {"SEARCH dead_letter"},  # max(number): the last row
    ("dead", "revivable"): {"USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY"},  # of one page
    ("status", "next_due"): {"SEARCH target USING COVERING INDEX target_visible_at"},  # min: the first row
    ("status", "counts"): {
        "SCAN target USING COVERING INDEX target_visible_at",  # for people: the index, without the rows
        "SCAN dead_letter USING COVERING INDEX dead_letter_reason",
        "SCAN dead_letter USING COVERING INDEX dead_letter_completion_id",
        "SCAN change",  # LIMIT 1
    },
    ("status", "dead_reasons"): {  # for people: the index, without the rows
        "SCAN dead_letter USING COVERING INDEX dead_letter_reason"
    },
}
_EVERY_STATEMENT = [
    (name, title) for name in ("put", "claim", "settle", "status", "dead", "history") for title in statements(name)
]


async def plan(queue: SqliteQueue, name: str, title: str) -> list[str]:
    """Ask SQLite how it would go about the statement."""

    def explain(connection: apsw.Connection) -> list[str]:
        sql = statements(name)[title]
        nothing = dict.fromkeys(re.findall(r":(\w+)", sql))
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", nothing)]

    return await queue._writer.read(explain)


@pytest.mark.parametrize(("name", "title"), _EVERY_STATEMENT)
async def test_no_statement_looks_at_the_whole_backlog(empty: SqliteQueue, name: str, title: str) -> None:
    steps = await plan(empty, name, title)

    exceptions = _EXCEPTIONS.get((name, title), set())
    assert [step for step in steps if not _BOUNDED.fullmatch(step) and step not in exceptions] == []


@pytest.mark.parametrize(
    ("name", "title", "index"),
    [
        ("claim", "due", "target_visible_at (visible_at<?)"),
        ("claim", "changes", "change_target (target=?)"),
        ("dead", "by_completion", "dead_letter_completion_id (completion_id=?"),
        ("dead", "by_reason", "dead_letter_reason (reason=?"),
    ],
)
async def test_what_is_asked_for_is_found_by_its_index(empty: SqliteQueue, name: str, title: str, index: str) -> None:
    assert f"INDEX {index}" in " ".join(await plan(empty, name, title))


async def steps_of(queue: SqliteQueue, call: Callable[[], Any]) -> int:
    """Count the instructions that SQLite's machine runs for a call."""
    steps = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    await queue._writer.read(lambda connection: connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, count))
    await call()
    await queue._writer.read(lambda connection: connection.trace_v2(0, None))
    return steps


async def costs(url: str) -> dict[str, int]:
    """What each call costs now, on a connection that has counted nothing yet."""
    claims: list[Claim] = []
    endings: list[Ending] = [finished, died, lambda claimed: Settlement(claimed, delay_seconds=5, attempts=1)]

    async def take() -> None:
        claims[:] = await claim(queue, 20)

    async def settle() -> None:
        assert await queue.settle([endings[i % 3](claimed) for i, claimed in enumerate(claims)]) == []

    async def bury_and_purge() -> None:
        last = [letter.number async for letter in queue.dead_letters(DeadSelection(reason="rejected"))][-1]
        assert await queue.purge_dead(DeadSelection(numbers=[last])) == 1
        await queue.retry_dead(DeadSelection(completion_id="c-000001"))
        await queue.purge_dead(DeadSelection())

    async with await SqliteQueue.open(url) as queue:
        return {
            "put": await steps_of(
                queue, lambda: queue.put([change(f"new-{i}", change_id=f"n-{i}") for i in range(20)])
            ),
            "claim": await steps_of(queue, take),
            "extend": await steps_of(queue, lambda: queue.extend(claims, lease_seconds=LEASE_SECONDS)),
            "settle": await steps_of(queue, settle),
            "next_due": await steps_of(queue, queue.next_due_seconds),
            "dead letters": await steps_of(queue, bury_and_purge),
        }


async def test_a_claim_ends_where_it_would_carry_too_much(empty: SqliteQueue) -> None:
    await empty.put([each for i in range(12) for each in changes(f"c-{i}", range(1_000))])

    assert [len(await claim(empty)) for _ in range(3)] == [10, 2, 0]


async def test_no_call_costs_more_with_a_long_backlog(tmp_path: Path) -> None:
    found = []
    for backlog in (100, BACKLOG):
        url = f"sqlite:///{tmp_path}/{backlog}.db"
        async with await SqliteQueue.open(url) as queue:
            await queue.put([change(f"c-{i:06}", change_id=f"line-{i}") for i in range(backlog)])
        found.append(await costs(url))
    short, long = found

    assert all(short.values())
    assert {call: cost for call, cost in long.items() if cost > 1.2 * short[call]} == {}
