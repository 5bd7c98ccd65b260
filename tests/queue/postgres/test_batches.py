"""Batches, urgency and records beside producers' long transactions."""

import asyncio
from typing import Any, Literal

import asyncpg
import pytest

from tests.queue.conformance.backends import Clock
from tests.queue.helpers import LEASE_SECONDS, change, claim, claim_one, finished, labels
from tests.queue.postgres_server import connected, is_waiting, sessions
from worker.changes import InvalidChange, MetadataChange
from worker.queue import Claim, PendingSelection, Settlement, Stored, Withdrawn
from worker.queue.batch import check_batch_name
from worker.queue.postgres import PostgresQueue, operations, pending
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.floor import Floor

DAY = 86_400.0
INTO_B = "SELECT metasync_enqueue($1, '{\"label\": \"x\"}', batch => 'b')"
URGENT = 'SELECT metasync_enqueue($1, \'{"label": "urgent"}\', urgent => true)'


async def urgent(queue: PostgresQueue) -> list[Claim]:
    return await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")


async def counts(queue: PostgresQueue) -> dict[str, tuple[int, int]]:
    return {batch.name: (batch.changes, batch.pending) for batch in await queue.batches()}


@pytest.mark.parametrize("before", [0, 1])
async def test_open_transactions_put_into_one_batch_without_waiting_for_each_other(
    url: str, queue: PostgresQueue, producer: Connection, before: int
) -> None:
    """On any connections: workers count in 16 parts."""
    await queue.put([change("c-0")] * before, batch="b")
    others = [await asyncpg.connect(url) for _ in range(17)]
    transactions = [connection.transaction() for connection in (producer, *others)]
    for number, (transaction, connection) in enumerate(zip(transactions, (producer, *others), strict=True)):
        await transaction.start()
        await connection.execute("SET LOCAL lock_timeout = 100")
        assert await connection.fetchval(INTO_B, f"c-{number + 1}") is True
    await queue.put([change("c-99")], batch="b")
    assert await counts(queue) == {"b": (before + 1, before + 1)}

    for transaction in transactions:
        await transaction.commit()
    for connection in others:
        await connection.close()

    assert await counts(queue) == {"b": (before + 19, before + 19)}
    assert await queue.batches("b") == await queue.batches()
    assert {each.batch for claimed in await claim(queue) for each in claimed.changes} == {"b"}


@pytest.mark.parametrize("is_added_up", [False, True])
async def test_changes_that_are_committed_late_are_withdrawn(
    queue: PostgresQueue,
    producer: Connection,
    is_added_up: bool,  # noqa: FBT001 -- a parameter
) -> None:
    await queue.put(change("c-0", change_id="mine"))
    await queue.put(change("c-0", change_id="mine"), batch="b")  # a duplicate: the batch is there, and has nothing yet
    async with producer.transaction():
        await producer.execute(INTO_B, "c-early")
        await queue.put([change("c-1"), change("c-2")], batch="b")
        if is_added_up:
            await queue.forget(DAY, most=1)
        assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(2, 0)

    if is_added_up:
        await queue.forget(DAY, most=1)
    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(1, 0)
    assert (await queue.status()).pending == 1
    assert await counts(queue) == {"b": (3, 0)}


async def test_puts_are_added_up_with_the_minute_and_counted_once(
    url: str, queue: PostgresQueue, producer: Connection
) -> None:
    for number in range(3):
        await producer.execute(INTO_B, f"c-{number}")
    await queue.put([change("c-3"), change("c-4")], batch="b")
    assert await producer.fetchval("SELECT count(*) FROM metasync.batch_put") == 4
    await queue.settle([finished(await queue_one(queue))])

    assert await producer.fetchval("SELECT count(*) FROM metasync.batch_put") == 0
    assert await counts(queue) == {"b": (5, 4)}
    async with connected(url) as other, producer.transaction():
        assert await producer.fetchval("SELECT metasync.add_up_batches(9)") is True
        assert await other.fetchval("SELECT metasync.add_up_batches(9)") is False


async def queue_one(queue: PostgresQueue) -> Claim:
    [claimed] = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker")
    return claimed


async def test_a_batch_that_an_open_transaction_adds_to_is_not_deleted(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put(change("c-1"), batch="b")
    await queue.settle([finished(await claim_one(queue))])
    async with producer.transaction():
        await producer.execute(INTO_B, "c-2")
        assert await queue.forget(0.0, most=9) == 0

    assert await counts(queue) == {"b": (2, 1)}
    assert [each.batch for each in (await claim_one(queue)).changes] == ["b"]


async def test_workers_do_not_wait_for_a_transaction_that_hurries_their_completion(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1", "first"), change("c-1", "second")])
    async with producer.transaction():
        await producer.execute("SET LOCAL lock_timeout = 100")
        in_hand = await claim_one(queue)
        await producer.execute(URGENT, "c-1")
        assert await queue.extend([in_hand], lease_seconds=LEASE_SECONDS) == []
        assert await queue.settle([Settlement(in_hand, applied=[in_hand.changes[0].number])]) == []
        assert await urgent(queue) == []
        again = await claim_one(queue)
        assert labels(again) == ["second"]
        assert await queue.withdraw(PendingSelection(completion_id="c-1")) == Withdrawn(0, 1)
        assert await queue.settle([Settlement(again)]) == []

    [claimed] = await urgent(queue)
    assert labels(claimed) == ["second", "urgent"]


async def test_a_producer_marks_a_leased_target_urgent_without_waiting(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put(change("c-1", "first"))
    in_hand = await claim_one(queue)
    await producer.execute("SET lock_timeout = 100")
    await producer.execute(URGENT, "c-1")
    await queue.put(change("c-1", "also"), urgent=True)

    assert await urgent(queue) == []
    assert await queue.settle([finished(in_hand)]) == []
    assert [labels(each) for each in await urgent(queue)] == [["urgent", "also"]]


@pytest.mark.parametrize(("ended_by", "in_sql"), [("settle", False), ("settle", True), ("withdraw", True)])
async def test_a_target_that_gets_an_urgent_change_while_the_last_one_ends_is_urgent(
    url: str,
    queue: PostgresQueue,
    producer: Connection,
    ended_by: str,
    in_sql: bool,  # noqa: FBT001 -- a parameter
) -> None:
    """Neither transaction sees yet what the other has done."""
    await queue.put(change("c-1"), batch="b", urgent=True)
    await queue.put(change("c-1", "also"))
    putting = producer.transaction()
    if in_sql:
        await putting.start()
        await producer.execute(URGENT, "c-1")
    async with connected(url) as worker:
        ending = worker.transaction()
        if ended_by == "settle":
            [claimed] = await urgent(queue)
            await ending.start()
            await operations.settle(worker, [Settlement(claimed, applied=[claimed.changes[0].number])])
        else:
            await ending.start()
            assert await pending.withdraw(worker, PendingSelection("b"), None) == (Withdrawn(1, 0), None)
        put = putting.commit() if in_sql else queue.put(change("c-1", "urgent"), urgent=True)
        task = asyncio.ensure_future(put)
        while not task.done() and not await sessions(worker, "cardinality(pg_blocking_pids(pid)) > 0"):
            await asyncio.sleep(0.005)
        await ending.commit()
        await task

    assert [labels(each) for each in await urgent(queue)] == [["also", "urgent"]]


async def test_a_worker_and_a_producer_of_urgent_changes_in_any_order_do_not_wait_for_each_other(
    url: str, producer: Connection
) -> None:
    """Workers lock targets in the order of ids, and this one has locked some."""
    await producer.execute("SET deadlock_timeout = '10ms'")
    for completion_id in ("c-1", "c-2"):
        await producer.execute(INTO_B, completion_id)
    lock = "SELECT FROM metasync.target WHERE completion_id = $1 FOR NO KEY UPDATE"
    async with connected(url) as worker:
        settling, putting = worker.transaction(), producer.transaction()
        await settling.start()
        await worker.execute(lock, "c-1")
        await putting.start()
        await producer.execute(URGENT, "c-2")
        await producer.execute(URGENT, "c-1")
        commit = asyncio.create_task(putting.commit())
        await is_waiting(worker, 1)
        await worker.execute(lock, "c-2")
        await settling.commit()
        await commit

    async with await PostgresQueue.open(url) as queue:
        assert {each.completion_id for each in await urgent(queue)} == {"c-1", "c-2"}


async def test_a_target_whose_urgent_change_is_withdrawn_is_not_urgent(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put(change("c-1", change_id="mine"))
    await queue.settle([finished(await claim_one(queue))], remember=True)
    await queue.put(change("c-1"))
    sql = "SELECT metasync_enqueue('c-1', '{}', change_id => 'mine', urgent => true)"
    assert await producer.fetchval(sql) is False
    transaction = producer.transaction()
    await transaction.start()
    await producer.execute(URGENT, "c-1")
    await transaction.rollback()

    assert await urgent(queue) == []
    assert len(await claim(queue)) == 1


@pytest.mark.parametrize("in_sql", [False, True])
async def test_a_target_that_becomes_urgent_late_is_claimed_at_once(
    queue: PostgresQueue,
    producer: Connection,
    in_sql: bool,  # noqa: FBT001 -- a parameter
) -> None:
    await queue.put([change("c-1"), change("c-2")])
    await producer.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 hour'")
    queue._urgent_floor = Floor(Clock())  # for which no time passes
    assert await urgent(queue) == []
    if in_sql:
        await producer.execute(URGENT, "c-1")
    else:
        await queue.put(change("c-1"), urgent=True)

    assert (await queue.next_due_seconds() or 0.0) <= 0
    assert [each.completion_id for each in await urgent(queue)] == ["c-1"]


async def test_a_target_that_is_no_longer_urgent_is_claimed_at_once(queue: PostgresQueue, producer: Connection) -> None:
    await queue.put(change("c-1"))
    await queue.put(change("c-1"), batch="b", urgent=True)
    await producer.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 hour'")
    queue._floor = Floor(Clock())  # for which no time passes
    assert await claim(queue) == []
    await queue.withdraw(PendingSelection(batch="b"))

    assert [each.completion_id for each in await claim(queue)] == ["c-1"]


@pytest.mark.parametrize("name", ["x" * 128, "9.a_-:@+"])
async def test_the_function_takes_the_names_that_the_queue_takes(
    queue: PostgresQueue, producer: Connection, name: str
) -> None:
    check_batch_name(name)

    assert await producer.fetchval("SELECT metasync_enqueue('c-1', '{}', batch => $1)", name) is True

    assert list(await counts(queue)) == [name]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "a\n", "é", "x" * 129, "a\N{LINE SEPARATOR}b"])
async def test_the_function_refuses_the_others_in_the_same_words(
    queue: PostgresQueue, producer: Connection, name: str
) -> None:
    with pytest.raises(InvalidChange) as refused:
        check_batch_name(name)
    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.execute("SELECT metasync_enqueue('c-1', '{}', batch => $1)", name)

    assert _reason(caught.value, " is no name ") == _reason(refused.value, " is no name ")
    assert caught.value.detail == 'completion_id: "c-1"'
    assert await queue.batches() == []


def _reason(error: Exception, words: str) -> str:
    """The message from these words on, in one line: the text before may be quoted differently."""
    _, found, reason = str(error.args[0]).partition(words)
    return found + reason


@pytest.mark.parametrize("as_of", [0.0, 0.125, 1_700_000_000.5])
async def test_the_function_takes_the_times_that_the_queue_takes(
    queue: PostgresQueue, producer: Connection, as_of: float
) -> None:
    MetadataChange("c-1", {}, as_of=as_of)

    assert await producer.fetchval("SELECT metasync_enqueue('c-1', '{}', as_of => to_timestamp($1))", as_of) is True

    assert [each.as_of for each in (await claim_one(queue)).changes] == [as_of]


@pytest.mark.parametrize("as_of", [-1.0, -0.001, 1e10])
async def test_the_function_refuses_other_times_in_the_same_words(producer: Connection, as_of: float) -> None:
    with pytest.raises(InvalidChange) as refused:
        MetadataChange("c-1", {}, as_of=as_of)
    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.execute("SELECT metasync_enqueue('c-1', '{}', as_of => to_timestamp($1))", as_of)

    assert _reason(caught.value, " is no time") == _reason(refused.value, " is no time")


@pytest.mark.parametrize("as_of", ["infinity", "-infinity"])
async def test_infinity_is_refused_as_a_time(producer: Connection, as_of: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="is no time"):
        await producer.execute(f"SELECT metasync_enqueue('c-1', '{{}}', as_of => '{as_of}')")


async def test_a_change_id_that_was_applied_is_a_duplicate_in_sql_too(
    queue: PostgresQueue, producer: Connection
) -> None:
    sql = "SELECT metasync_enqueue($1, '{}', change_id => 'mine', batch => 'b')"
    assert await producer.fetchval(sql, "c-1") is True
    await queue.settle([finished(await claim_one(queue))], remember=True)

    assert await producer.fetchval(sql, "c-2") is False
    assert await queue.put(change("c-3", change_id="mine")) == Stored(0, 1)
    assert await queue.next_due_seconds() is None  # no target was made
    assert await counts(queue) == {"b": (1, 0)}


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_change_id_applied_after_the_snapshot_is_not_stored_again(
    queue: PostgresQueue, producer: Connection, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    sql = "SELECT metasync_enqueue('c-1', '{}', change_id => $1)"
    await queue.put([change("c-1", change_id="mine"), change("c-1", "other")])
    claimed = await claim_one(queue)
    transaction = producer.transaction(isolation=isolation)
    await transaction.start()
    assert await producer.fetchval("SELECT count(*) FROM metasync.change") == 2
    await queue.settle([Settlement(claimed, applied=[claimed.changes[0].number])], remember=True)
    assert await producer.fetchval(sql, "another") is True
    with pytest.raises(asyncpg.SerializationError):
        await producer.fetchval(sql, "mine")
    await transaction.rollback()

    async with producer.transaction(isolation=isolation):
        assert await producer.fetchval(sql, "mine") is False
        assert await producer.fetchval(sql, "another") is True
    assert await producer.fetchval("SELECT count(*) FROM metasync.settled") == 1


async def test_a_change_id_that_is_settled_while_it_is_put_is_a_duplicate(
    queue: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.put(change("c-1", change_id="mine"))
    claims = await claim(queue)
    execute = asyncpg.Connection.execute

    async def settle_first(connection: Connection, query: str, *arguments: object, **options: Any) -> str:
        if "INSERT INTO metasync.change " in query and claims:  # what was settled before has been looked up by now
            assert await queue.settle([finished(claims.pop())], remember=True) == []
        return await execute(connection, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", settle_first)
    stored = await queue.put([change("c-1", change_id="mine"), change("c-2", "new")])

    assert stored == Stored(1, 1)
    assert not claims
    assert [labels(each) for each in await claim(queue)] == [["new"]]


async def test_positions_of_conflicts_count_settled_changes_too(queue: PostgresQueue) -> None:
    await queue.put(change("c-1", change_id="settled"))
    await queue.settle([finished(await claim_one(queue))], remember=True)
    await queue.put(change("c-1", change_id="pending"))
    again = [change("c-1", change_id="settled"), change("c-1"), change("c-1", "other", change_id="pending")]

    assert await queue.put(again) == Stored(1, 1, (2,))


async def forget(queue: PostgresQueue, admin: Connection, *, most: int) -> int:
    """Update the server's statistics, as it does by itself over time, and delete some."""
    await admin.execute("ANALYZE metasync.settled, metasync.newest")
    return await queue.forget(DAY, most=most)


async def test_the_newest_remembered_rows_stay_even_if_all_are_young(
    queue: PostgresQueue, producer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.postgres.remembered.MAX_REMEMBERED", 3)
    for number in range(5):
        await queue.put(MetadataChange(f"c-{number}", {}, change_id=f"id-{number}", as_of=9.0))
        await queue.settle([finished(await claim_one(queue))], remember=True)

    assert [await forget(queue, producer, most=1) for _ in range(4)] == [2, 2, 0, 0]

    again = [MetadataChange(f"c-{number}", {}, change_id=f"id-{number}", as_of=1.0) for number in range(5)]
    assert (await queue.put(again)).added == 2
    assert {each.newest_as_of for each in await claim(queue)} == {None}
    await queue.put([MetadataChange(f"c-{number}", {}, as_of=1.0) for number in range(2, 5)])
    assert [each.newest_as_of for each in await claim(queue)] == [9.0, 9.0, 9.0]


async def test_remembered_rows_stay_when_others_are_remembered_again_and_again(
    queue: PostgresQueue, producer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.postgres.remembered.MAX_REMEMBERED", 3)
    for completion_id in ("c-1", "c-2", *["c-3"] * 5):
        await queue.put(MetadataChange(completion_id, {}, as_of=9.0))
        await queue.settle([finished(await claim_one(queue))], remember=True)

    assert await forget(queue, producer, most=9) == 0

    await queue.put([MetadataChange(f"c-{number}", {}, as_of=1.0) for number in range(1, 4)])
    assert [each.newest_as_of for each in await claim(queue)] == [9.0, 9.0, 9.0]


async def test_the_newest_finished_batches_stay_even_if_all_are_young(
    queue: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.postgres.batches.MAX_FINISHED_BATCHES", 2)
    await queue.put(change("c-0"), batch="pending")
    [kept] = await claim(queue)
    for number in range(4):
        await queue.put(change("c-1"), batch=f"b-{number}")
        await queue.settle([finished(await claim_one(queue))])
    await queue.settle([Settlement(kept)])

    assert await queue.forget(DAY, most=9) == 2
    assert list(await counts(queue)) == ["b-3", "b-2", "pending"]
