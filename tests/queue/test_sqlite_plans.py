"""What a call costs does not grow with the backlog: how SQLite goes about each statement, and how far it gets."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.queue.helpers import LEASE_SECONDS, Ending, change, claim, died, failed, finished
from worker.queue import Claim, DeadSelection, Place
from worker.queue.sqlite import SqliteQueue
from worker.queue.statements import read_statements

BACKLOG = 50_000


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
        yield queue


# What is looked at step by step, and not by an index, is what was handed in, or what a LIMIT has cut off before.
_BOUNDED = re.compile(
    r"SCAN (claim|claimed|death|given|kept|noted|step|wanted|selected|json_each|\(subquery-\d+\)) ?(VIRTUAL TABLE.*)?"
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
    ("claim", "changes"): {"CO-ROUTINE carried", "SCAN carried"},  # of the changes to be carried
    ("claim", "middle"): {  # of a few samples
        *(f"MATERIALIZE {name}" for name in ("due", "sample", "point", "oldest", "newest", "last")),
        *(f"SCAN {name}" for name in ("due", "sample", "point", "oldest", "newest", "last")),
        *("MERGE (UNION)", "LEFT", "RIGHT", "USE TEMP B-TREE FOR ORDER BY"),
        "SEARCH target",  # max(number): the last row
    },
    ("confirmed", "append"): {"SCAN confirmed"},  # LIMIT 1
    ("confirmed", "forget"): {"SCAN confirmed"},  # LIMIT 2
    ("dead", "newest"): {"SEARCH dead_letter"},  # max(number): the last row
    ("dead", "revivable"): {"USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY"},  # of one page
    ("status", "next_due"): {"SEARCH target USING COVERING INDEX target_visible_at"},  # min: the first row
    ("status", "leases"): {  # of the targets that are leased or wait, one row for each owner
        "CO-ROUTINE (subquery-1)",
        "USE TEMP B-TREE FOR GROUP BY",
        "USE TEMP B-TREE FOR ORDER BY",
    },
    ("status", "counts"): {
        "SCAN change USING COVERING INDEX change_target",  # for people: to count an index's rows is quick
        "SCAN dead_letter USING COVERING INDEX dead_letter_reason",
        "SCAN dead_letter USING COVERING INDEX dead_letter_completion_id",
        "SCAN change",  # LIMIT 1
    },
    ("dead", "reasons"): {  # for people: the index, without the rows
        "SCAN dead_letter USING COVERING INDEX dead_letter_reason"
    },
}
_EVERY_STATEMENT = [
    (name, title)
    for name in ("put", "claim", "settle", "confirmed", "status", "dead", "history")
    for title in read_statements("worker.queue.sqlite", name)
]


async def plan(queue: SqliteQueue, name: str, title: str) -> list[str]:
    """Ask SQLite how it would go about the statement."""

    def explain(connection: apsw.Connection) -> list[str]:
        sql = read_statements("worker.queue.sqlite", name)[title]
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
        ("claim", "oldest", "target_visible_at (visible_at<?)"),
        ("claim", "newest", "target_visible_at (visible_at<?)"),
        ("claim", "middle", "target_visible_at (visible_at=? AND number>?)"),
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
    endings: list[Ending] = [finished, died, failed]

    async def take() -> None:
        claims[:] = await claim(queue, 20)

    async def claim_at(queue: SqliteQueue, place: Place) -> None:
        assert len(await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place=place)) == 1

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
            "claim the newest": await steps_of(queue, lambda: claim_at(queue, "newest")),
            "claim the middle": await steps_of(queue, lambda: claim_at(queue, "middle")),
            "extend": await steps_of(queue, lambda: queue.extend(claims, lease_seconds=LEASE_SECONDS)),
            "settle": await steps_of(queue, settle),
            "next_due": await steps_of(queue, queue.next_due_seconds),
            "dead letters": await steps_of(queue, bury_and_purge),
        }


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


async def test_ten_thousand_letters_are_retried_at_ten_times_the_cost_of_a_thousand(tmp_path: Path) -> None:
    steps = []
    for count in (1_000, 9_999):  # one transaction: SQLite would count again what runs again
        async with await SqliteQueue.open(f"sqlite:///{tmp_path}/{count}.db") as queue:
            await queue.put([change(f"c-{i}") for i in range(count)])
            await queue.settle([died(claimed) for claimed in await claim(queue, count)])
            steps.append(await steps_of(queue, lambda: queue.retry_dead(DeadSelection())))
            assert (await queue.status()).pending == count

    assert 8 < steps[1] / steps[0] < 12


@pytest.mark.parametrize("place", ["oldest", "middle", "newest"])
async def test_a_claim_costs_no_more_where_all_is_due_since_the_same_moment(tmp_path: Path, place: Place) -> None:
    found = []
    for backlog in (100, BACKLOG):
        async with await SqliteQueue.open(f"sqlite:///{tmp_path}/{backlog}.db") as queue:
            await queue.put([change(f"c-{i:06}") for i in range(backlog)])
            found.append(
                await steps_of(
                    queue,
                    lambda: queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place=place),
                )
            )
    short, long = found

    assert 0 < long < 1.2 * short
