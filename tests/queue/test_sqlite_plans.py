"""A call's cost does not grow with the backlog: SQLite's plan for each statement, and its row counts."""

import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import apsw
import pytest

from tests.queue.helpers import LEASE_SECONDS, Ending, change, claim, died, failed, finished
from worker.queue import Claim, DeadSelection, PendingSelection, Place, Withdrawn
from worker.queue.sqlite import SqliteQueue
from worker.queue.statements import read_statements

BACKLOG = 50_000


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
        yield queue


# A scan without an index is of the arguments, or of rows that a LIMIT has bounded before.
_BOUNDED = re.compile(
    r"SCAN (claim|claimed|death|ends|given|kept|noted|step|wanted|selected|json_each|\(subquery-\d+\))"
    r" ?(VIRTUAL TABLE.*)?"
    r"|SEARCH .* USING (COVERING INDEX|INDEX|INTEGER PRIMARY KEY|PRIMARY KEY) .*"
    r"|(CO-ROUTINE|MATERIALIZE) (given|\(subquery-\d+\))"
    r"|(CORRELATED )?(LIST|SCALAR) SUBQUERY \d+"
    r"|(REUSE LIST SUBQUERY|CREATE BLOOM FILTER).*"
)
# Of the targets and changes of one call.
_CARRIED = {"SCAN CONSTANT ROW", "MATERIALIZE due", "SEARCH due", "SCAN due", "CO-ROUTINE carried", "SCAN carried"}
# These statements scan a whole index, or sort, for these reasons.
_EXCEPTIONS = {
    ("put", "newest"): {"SEARCH change"},  # max(id): the last row
    ("put", "newest_target"): {"SEARCH target"},  # max(number): the last row
    ("put", "count"): {"MATERIALIZE fresh", "USE TEMP B-TREE FOR GROUP BY", "SCAN fresh"},  # of the new changes
    ("claim", "oldest"): _CARRIED,
    ("claim", "urgent"): _CARRIED,
    ("claim", "newest"): {
        *_CARRIED,
        *("COMPOUND QUERY", "LEFT-MOST SUBQUERY", "UNION ALL"),
        "SCAN target",  # by number, the last first, LIMIT 20
    },
    ("claim", "middle"): {  # of a few samples
        *_CARRIED,
        *(f"MATERIALIZE {name}" for name in ("found", "sample", "point", "oldest", "newest", "last")),
        *(f"SCAN {name}" for name in ("found", "sample", "point", "oldest", "newest", "last")),
        *("MERGE (UNION)", "LEFT", "RIGHT", "USE TEMP B-TREE FOR ORDER BY"),
        "SEARCH target",  # max(number): the last row
    },
    ("confirmed", "append"): {"SCAN confirmed", "SCAN oldest"},  # LIMIT 1
    ("confirmed", "forget"): {"SCAN confirmed"},  # LIMIT 2
    ("confirmed", "rows"): {  # of the rows asked for
        *("CO-ROUTINE read", "CO-ROUTINE (subquery-4)", "SCAN read", "USE TEMP B-TREE FOR ORDER BY"),
    },
    ("confirmed", "expire"): {"SCAN confirmed", "SEARCH confirmed"},  # LIMIT; the newest row
    ("confirmed", "empty"): {"SEARCH confirmed"},  # the newest row
    ("dead", "newest"): {"SEARCH dead_letter"},  # max(number): the last row
    ("dead", "revivable"): {"USE TEMP B-TREE FOR GROUP BY", "USE TEMP B-TREE FOR ORDER BY"},  # of one page
    ("status", "next_due"): {  # min, twice: the first row of the urgent ones, and of the others
        *("CO-ROUTINE (subquery-2)", "COMPOUND QUERY", "LEFT-MOST SUBQUERY", "UNION ALL", "SEARCH (subquery-2)"),
    },
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
    ("pending", "free"): {"USE TEMP B-TREE FOR json_group_array(DISTINCT)"},  # of one piece
    ("pending", "count_in_batches"): {"MATERIALIZE gone", "USE TEMP B-TREE FOR GROUP BY", "SCAN gone"},  # likewise
    ("pending", "count_in_targets"): {"MATERIALIZE gone", "USE TEMP B-TREE FOR GROUP BY", "SCAN gone"},  # likewise
    ("batch", "grow"): {"SEARCH change"},  # max(id): the last row
    ("batch", "revive"): {  # of one page of letters; max(id) likewise
        *("MATERIALIZE revived", "USE TEMP B-TREE FOR GROUP BY", "SCAN revived", "SEARCH change"),
    },
    ("batch", "open_again"): {"USE TEMP B-TREE FOR DISTINCT"},  # of one page of letters
    ("batch", "read"): {  # without a name, for people: ten thousand finished batches, and the others
        *("CO-ROUTINE (subquery-2)", "MERGE (UNION ALL)", "LEFT", "SCAN batch", "RIGHT", "SCAN (subquery-2)"),
    },
    ("batch", "forget"): {"SCAN batch", "CO-ROUTINE (subquery-1)", "USE TEMP B-TREE FOR ORDER BY"},  # likewise
    ("remembered", "anything"): {"SCAN CONSTANT ROW", "SCAN generation"},  # the first row
    ("remembered", "expired"): {"SCAN CONSTANT ROW"},
    ("dead", "reasons"): {  # for people: the index, without the rows
        "SCAN dead_letter USING COVERING INDEX dead_letter_reason"
    },
}
_EVERY_STATEMENT = [
    (name, title)
    for name in (
        *("put", "claim", "settle", "confirmed", "status", "dead", "history", "pending", "batch", "remembered"),
    )
    for title in read_statements("worker.queue.sqlite", name)
    if title != "their_changes"  # a part of others
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


async def test_the_text_of_a_change_that_is_stored_is_written_once(empty: SqliteQueue) -> None:
    """And not anew for each of its fields."""
    assert "CO-ROUTINE given" in await plan(empty, "put", "append")


@pytest.mark.parametrize(
    ("name", "title", "index"),
    [
        ("claim", "oldest", "target_visible_at (urgent=? AND visible_at<?)"),
        ("claim", "newest", "target_visible_at (urgent=? AND visible_at<?)"),
        ("claim", "middle", "target_visible_at (urgent=? AND visible_at=? AND number>?)"),
        ("claim", "urgent", "target_visible_at (urgent=? AND visible_at<?)"),
        ("claim", "heal", "target_visible_at (urgent=? AND visible_at>?)"),
        ("status", "counts", "target_visible_at (urgent=? AND visible_at>?)"),
        ("settle", "calm", "change_urgent (target=?)"),
        ("pending", "by_completion", "change_target (target=? AND id>?)"),
        ("pending", "every", "change_target (target>?)"),
        ("claim", "oldest", "change_target (target=?)"),
        ("dead", "by_completion", "dead_letter_completion_id (completion_id=?"),
        ("dead", "by_batch", "dead_letter_batch (batch=? AND rowid>? AND rowid<?)"),
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

    async def take_urgent() -> None:
        claims[:] = await queue.claim(5, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
        assert len(claims) == 5

    async def settle_and_remember() -> None:
        assert await queue.settle([endings[i % 3](claimed) for i, claimed in enumerate(claims)], remember=True) == []

    async def read(selection: PendingSelection) -> None:
        assert len([each async for each in queue.pending_changes(selection)]) == 1

    async def withdraw(selection: PendingSelection, changes: int) -> None:
        assert await queue.withdraw(selection) == Withdrawn(changes, 0)

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
            "put an urgent batch": await steps_of(
                queue,
                lambda: queue.put(
                    [change(f"urgent-{i}", change_id=f"u-{i}") for i in range(20)], batch="small", urgent=True
                ),
            ),
            "claim the urgent": await steps_of(queue, take_urgent),
            "settle and remember": await steps_of(queue, settle_and_remember),
            "read a completion": await steps_of(queue, lambda: read(PendingSelection(completion_id="c-000070"))),
            "read a change": await steps_of(queue, lambda: read(PendingSelection(change_id="line-71"))),
            "withdraw a completion": await steps_of(
                queue, lambda: withdraw(PendingSelection(completion_id="c-000070"), 1)
            ),
            "withdraw a change": await steps_of(queue, lambda: withdraw(PendingSelection(change_id="line-71"), 1)),
            "withdraw a batch": await steps_of(queue, lambda: withdraw(PendingSelection(batch="small"), 16)),
            "look at a batch": await steps_of(queue, lambda: queue.batches("small")),
            "forget": await steps_of(queue, lambda: queue.forget(60.0, most=100)),
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


async def test_no_call_costs_more_where_much_is_urgent(tmp_path: Path) -> None:
    found = []
    for backlog in (100, BACKLOG):
        async with await SqliteQueue.open(f"sqlite:///{tmp_path}/{backlog}.db") as queue:
            await queue.put([change(f"c-{i:06}") for i in range(backlog)], urgent=True)
            await queue.put([change("usual-1"), change("usual-2"), change("usual-3")])
            claims: list[Claim] = []

            async def claim_at(place: Place, claims: list[Claim] = claims, queue: SqliteQueue = queue) -> None:
                claims += await queue.claim(3, lease_seconds=LEASE_SECONDS, owner="worker", place=place)

            async def settle(claims: list[Claim] = claims, queue: SqliteQueue = queue) -> None:
                assert await queue.settle([failed(each) for each in claims]) == []

            found.append([await steps_of(queue, partial(claim_at, place)) for place in get_args(Place)])
            found[-1].append(await steps_of(queue, settle))
            assert len(claims) == 6
            found[-1].append(await steps_of(queue, queue.next_due_seconds))
    short, long = found

    assert all(short)
    assert [cost / before for before, cost in zip(short, long, strict=True) if cost > 1.2 * before] == []


async def test_changes_without_a_change_id_or_as_of_cost_no_statement_of_what_is_remembered(
    empty: SqliteQueue,
) -> None:
    seen: list[str] = []
    await empty._writer.read(
        lambda connection: connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: seen.append(event["sql"]))
    )

    await empty.put([change(f"c-{i}") for i in range(3)])
    await empty.settle([finished(each) for each in await claim(empty)], remember=True)

    assert len(seen) > 5
    assert [sql for sql in seen if re.search("settled|newest AS|generation|batch SET|INTO batch", sql)] == []


async def test_ten_thousand_letters_are_retried_at_ten_times_the_cost_of_a_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.sqlite.letters.BULK", 10_000)  # SQLite would count again what runs again
    steps = []
    for count in (1_000, 9_999):
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
