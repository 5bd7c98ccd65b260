"""Producers that enqueue in SQL, inside transactions of their own that may stay open as long as they like."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.queue.helpers import (
    LEASE_SECONDS,
    about,
    change,
    claim,
    claim_one,
    finished,
    labels,
    numbers,
    pending_labels,
)
from tests.queue.postgres_server import administer, connected, is_waiting, new_database, new_role
from worker.changes import InvalidChange, MetadataChange
from worker.queue import QueueUnavailable
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.connections import Connection


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[PostgresQueue]:
    async with await PostgresQueue.open(url) as queue:
        yield queue


@pytest.fixture
async def producer(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection:
        yield connection


async def enqueue(connection: Connection, completion_id: str, label: str = "x") -> None:
    assert await connection.fetchval("SELECT metasync_enqueue($1, $2)", completion_id, json.dumps({"label": label}))


async def test_what_a_producer_enqueues_is_claimed_with_all_that_it_said(
    queue: PostgresQueue, producer: Connection
) -> None:
    sql = "SELECT metasync_enqueue('c-1', '{\"grade\": \"Ä\", \"draft\": null}', change_id => 'line-1')"
    assert await producer.fetchval(sql) is True
    assert await producer.fetchval("SELECT metasync_enqueue('c-1', '{}'::jsonb, 'replace')") is True

    claimed = await claim_one(queue)
    first, second = claimed.changes

    assert (first.completion_id, first.change_id, first.mode) == ("c-1", "line-1", "merge")
    assert json.loads(first.metadata) == {"grade": "Ä", "draft": None}
    assert (second.change_id, second.mode, second.metadata) == (None, "replace", "{}")
    assert claimed.age_seconds == about(0)


async def test_a_pending_change_id_is_not_stored_again(queue: PostgresQueue, producer: Connection) -> None:
    await queue.put([change("c-1", "first", change_id="line-1")])

    assert await producer.fetchval("SELECT metasync_enqueue('c-2', '{}', change_id => 'line-1')") is False
    await queue.settle([finished(await claim_one(queue))])
    assert await queue.next_due_seconds() is None  # no target was made for c-2


async def test_the_long_name_is_the_same_function(queue: PostgresQueue, producer: Connection) -> None:
    await producer.execute("SET search_path = ''")
    await producer.fetchval("SELECT metasync.metasync_enqueue('c-1', '{\"label\": \"x\"}')")

    assert await pending_labels(queue) == {"c-1": ["x"]}


async def test_a_change_is_stored_with_the_producers_own_work_or_not_at_all(
    queue: PostgresQueue, producer: Connection
) -> None:
    transaction = producer.transaction()
    await transaction.start()
    await enqueue(producer, "c-1", "undone")
    await transaction.rollback()
    async with producer.transaction():
        await enqueue(producer, "c-1", "a")
        savepoint = producer.transaction()
        await savepoint.start()
        await enqueue(producer, "c-1", "taken back")
        await enqueue(producer, "c-2", "taken back")
        await savepoint.rollback()
        await enqueue(producer, "c-1", "b")
        assert await claim(queue) == []

    assert await pending_labels(queue) == {"c-1": ["a", "b"]}


LONG = "\N{GRINNING FACE}" * 512
VALID: list[tuple[Any, ...]] = [
    ("c" * 256, {}, "merge", None),
    ("9.x_-", {LONG[:64]: LONG}, "replace", LONG[:256]),
    ("c-1", {str(i): "x" for i in range(16)} | {f"not-{i}": None for i in range(9)}, "merge", "l"),
    ("c-1", {"": "", "\n\\'\"": "\x01"}, "merge", "'"),
]
INVALID: list[tuple[Any, ...]] = [
    (None, {}, "merge", None),
    ("", {}, "merge", None),
    ("c" * 257, {}, "merge", None),
    ("-c", {}, "merge", None),
    ("c/../x", {}, "merge", None),
    ("c-1\n", {}, "merge", None),
    ("ç", {}, "merge", None),
    ("c-1", None, "merge", None),
    ("c-1", ["secret"], "merge", None),
    ("c-1", "secret", "merge", None),
    ("c-1", {"k": 7}, "merge", None),
    ("c-1", {"k": True}, "merge", None),
    ("c-1", {"k": ["secret"]}, "merge", None),
    ("c-1", {"k": {"secret": "secret"}}, "merge", None),
    ("c-1", {LONG[:65]: "x"}, "merge", None),
    ("c-1", {"k": "secret" + LONG}, "merge", None),
    ("c-1", {"k": None}, "replace", None),
    ("c-1", {str(i): "x" for i in range(17)}, "merge", None),
    ("c-1", {}, "append", None),
    ("c-1", {}, "MERGE", None),
    ("c-1", {}, None, None),
    ("c-1", {}, "merge", ""),
    ("c-1", {}, "merge", LONG[:257]),
]


@pytest.mark.parametrize("arguments", VALID)
async def test_whatever_can_be_a_change_is_taken(
    queue: PostgresQueue, producer: Connection, arguments: tuple[Any, ...]
) -> None:
    completion_id, patch, mode, change_id = arguments
    MetadataChange(completion_id, patch, mode, change_id)

    added = await producer.fetchval(
        "SELECT metasync_enqueue($1, $2, $3, $4)", completion_id, json.dumps(patch), mode, change_id
    )

    assert added is True
    [stored] = (await claim_one(queue)).changes
    assert (stored.completion_id, json.loads(stored.metadata)) == (completion_id, patch)
    assert (stored.mode, stored.change_id) == (mode, change_id)


@pytest.mark.parametrize("arguments", INVALID)
async def test_whatever_cannot_be_a_change_is_refused_with_a_reason_that_shows_no_value(
    queue: PostgresQueue, producer: Connection, arguments: tuple[Any, ...]
) -> None:
    completion_id, patch, mode, change_id = arguments
    with pytest.raises(InvalidChange):
        MetadataChange(completion_id, patch, mode, change_id)
    text = None if patch is None else json.dumps(patch)

    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.fetchval("SELECT metasync_enqueue($1, $2, $3, $4)", completion_id, text, mode, change_id)

    assert str(caught.value).startswith(("completion_id ", "metadata ", "mode ", "change_id "))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (await queue.status()).pending == 0


async def test_a_producer_needs_no_right_but_that_to_call_the_function(url: str, queue: PostgresQueue) -> None:
    async with new_role(url) as (app, app_url):
        await administer(
            url,
            f"GRANT EXECUTE ON FUNCTION metasync.metasync_enqueue TO {app}; GRANT USAGE ON SCHEMA metasync TO {app}",
        )
        async with connected(app_url) as producer:
            await enqueue(producer, "c-1", "short")
            await producer.fetchval("SELECT metasync.metasync_enqueue('c-1', '{\"label\": \"long\"}')")
            for forbidden in ("SELECT FROM metasync.change", "SELECT metasync.begin_append(ARRAY['c-1'])"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await producer.execute(forbidden)

    assert await pending_labels(queue) == {"c-1": ["short", "long"]}


async def test_nobody_may_call_the_function_who_was_not_allowed_to(url: str) -> None:
    async with new_role(url) as (_, app_url), connected(app_url) as producer:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await producer.execute("SELECT metasync_enqueue('c-1', '{}')")


async def test_an_open_transaction_does_not_keep_workers_from_its_completion(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1", "old"), change("c-2", "other")])
    async with producer.transaction():
        await enqueue(producer, "c-1", "new")
        claims = await claim(queue)
        assert {claimed.completion_id: labels(claimed) for claimed in claims} == {"c-1": ["old"], "c-2": ["other"]}
        assert await queue.extend(claims, lease_seconds=LEASE_SECONDS) == []
        assert await queue.settle([finished(claimed) for claimed in claims]) == []
        assert (await queue.status()).pending == 0
        assert await claim(queue) == []

    await until_looked_at_again(producer)
    assert await pending_labels(queue) == {"c-1": ["new"]}


async def until_looked_at_again(connection: Connection) -> None:
    """Let the time pass that a target without changes is left alone."""
    await connection.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 second'")


async def test_a_target_that_an_open_transaction_kept_goes_when_nothing_came_of_it(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1", "old")])
    transaction = producer.transaction()
    await transaction.start()
    await enqueue(producer, "c-1", "new")
    await queue.settle([finished(await claim_one(queue))])
    assert await claim(queue) == []
    assert await queue.next_due_seconds() == about(1)
    await transaction.rollback()
    await until_looked_at_again(producer)

    assert await claim(queue) == []
    assert await queue.next_due_seconds() is None


async def test_changes_wait_for_an_open_transaction_that_came_first_and_follow_it(
    url: str, queue: PostgresQueue, producer: Connection
) -> None:
    async with connected(url) as second, asyncio.TaskGroup() as group, producer.transaction():
        await enqueue(producer, "c-1", "first")
        putting = group.create_task(queue.put([change("c-0"), change("c-1", "second")]))
        await is_waiting(producer, 1)
        enqueuing = group.create_task(enqueue(second, "c-1", "third"))
        await is_waiting(producer, 2)
        await queue.put([change("c-2", "of no concern")])  # other completions are free
        assert not putting.done()
        assert not enqueuing.done()
        await enqueue(producer, "c-1", "still first")

    found = await pending_labels(queue)
    assert found["c-1"][:2] == ["first", "still first"]
    assert sorted(found["c-1"][2:]) == ["second", "third"]


async def test_a_put_gives_up_on_a_transaction_that_stays_open_and_stores_nothing(
    url: str, producer: Connection
) -> None:
    async with await PostgresQueue.open(url, timeout_seconds=0.5) as queue:
        async with producer.transaction():
            await enqueue(producer, "c-1", "first")
            with pytest.raises(QueueUnavailable, match="it may be a producer's that stays open"):
                await queue.put([change("c-0"), change("c-1", "second")])

        assert await pending_labels(queue) == {"c-1": ["first"]}


async def test_two_puts_of_the_same_change_ids_in_any_order_do_not_get_in_each_others_way(url: str) -> None:
    async with await PostgresQueue.open(url) as one, await PostgresQueue.open(url) as other:
        ids = [f"line-{i}" for i in range(200)]
        forth = [change(f"forth-{each}", change_id=each) for each in ids]
        back = [change(f"back-{each}", change_id=each) for each in reversed(ids)]
        for _ in range(10):
            stored = await asyncio.gather(one.put(forth), other.put(back))
            assert sorted(each.added for each in stored) == [0, 200]
            claims = await claim(one, 1_000)
            assert len(claims) == 200  # and no target of what was not stored
            assert await one.settle([finished(claimed) for claimed in claims]) == []


async def test_a_transaction_in_a_frozen_view_adds_to_a_target_that_has_been_claimed_since(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1", "old")])
    async with producer.transaction(isolation="repeatable_read"):
        await producer.execute("SELECT FROM metasync.target")
        claimed = await claim_one(queue)
        await enqueue(producer, "c-1", "new")
        assert await queue.settle([finished(claimed)]) == []

    assert await pending_labels(queue) == {"c-1": ["new"]}


async def test_a_transaction_in_a_frozen_view_fails_where_its_target_is_another_since(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1")])
    transaction = producer.transaction(isolation="repeatable_read")
    await transaction.start()
    await producer.execute("SELECT FROM metasync.target")
    await queue.settle([finished(await claim_one(queue))])
    await queue.put([change("c-1", "newer")])
    with pytest.raises(asyncpg.SerializationError):
        await enqueue(producer, "c-1", "of the past")
    await transaction.rollback()

    assert await pending_labels(queue) == {"c-1": ["newer"]}


async def test_a_transaction_in_a_frozen_view_makes_a_new_target_where_its_own_has_gone_since(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1")])
    async with producer.transaction(isolation="serializable"):
        await producer.execute("SELECT FROM metasync.target")
        await queue.settle([finished(await claim_one(queue))])
        await enqueue(producer, "c-1", "new")

    assert (await queue.status()).pending == 1
    assert await pending_labels(queue) == {"c-1": ["new"]}


@dataclass(slots=True)
class OutboxRace:
    """Producers with open transactions, and a worker.

    Args:
        producing: how many producers are at it.
        committed: labels of the changes that were.
        applied: by completion, number and label of each change in the order of being applied.
    """

    url: str
    queue: PostgresQueue
    producing: int = 4
    committed: list[str] = field(default_factory=list)
    applied: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    async def produce(self, name: str, dice: random.Random) -> None:
        async with connected(self.url) as connection:
            for serial in range(40):
                transaction = connection.transaction()
                await transaction.start()
                # In the order of ids, as the documentation asks for: else two may wait for each other.
                completion_ids = sorted(f"c-{dice.randrange(6)}" for _ in range(dice.randint(1, 3)))
                made = [f"{completion_id} {name}:{serial}.{i}" for i, completion_id in enumerate(completion_ids)]
                for completion_id, label in zip(completion_ids, made, strict=True):
                    await enqueue(connection, completion_id, label)
                await connection.execute("SELECT pg_sleep($1)", dice.random() / 200)
                if dice.random() < 0.2:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    self.committed += made
        self.producing -= 1

    async def work(self) -> None:
        while self.producing or await self.queue.next_due_seconds() is not None:
            claims = await claim(self.queue, 3)
            for claimed in claims:
                done = zip(numbers(claimed), labels(claimed), strict=True)
                self.applied.setdefault(claimed.completion_id, []).extend(done)
            assert await self.queue.settle([finished(claimed) for claimed in claims]) == []
            if not claims:
                await self.queue.wait_for_work(0.01)


async def test_producers_that_commit_late_or_not_at_all_race_with_a_worker_and_nothing_is_lost(
    url: str, queue: PostgresQueue
) -> None:
    race = OutboxRace(url, queue)
    async with asyncio.TaskGroup() as group:
        for i in range(race.producing):
            group.create_task(race.produce(f"p{i}", random.Random(i)))
        group.create_task(race.work())

    assert sorted(label for done in race.applied.values() for _, label in done) == sorted(race.committed)
    for done in race.applied.values():
        assert done == sorted(done)
