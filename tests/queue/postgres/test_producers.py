"""Producers that enqueue in SQL, inside their own, possibly long, transactions."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any, Literal

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
from worker.queue import QueueUnavailable, Stored
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.connections import Connection


async def enqueue(connection: Connection, completion_id: str, label: str = "x") -> None:
    assert await connection.fetchval("SELECT metasync_enqueue($1, $2)", completion_id, json.dumps({"label": label}))


async def test_a_producers_change_is_claimed_with_all_its_fields(queue: PostgresQueue, producer: Connection) -> None:
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
    await queue.put([MetadataChange("c-1", {"a": "1", "b": "ü"}, change_id="line-1")])

    for patch in ('{"b": "\\u00fc", "a": "1"}', '{"a":"1","b":"ü"}'):
        assert await producer.fetchval("SELECT metasync_enqueue('c-1', $1, change_id => 'line-1')", patch) is False
    assert (await queue.status()).pending == 1


@pytest.mark.parametrize(
    "said", ["'c-2', '{}'", "'c-1', '{\"a\": \"1\"}'", "'c-1', '{\"a\": null}'", "'c-1', '{}', 'replace'"]
)
async def test_a_pending_change_id_with_other_content_is_an_error_that_names_both(
    queue: PostgresQueue, producer: Connection, said: str
) -> None:
    await producer.execute("SELECT metasync_enqueue('c-1', '{}', change_id => 'line-1')")

    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await producer.execute(f"SELECT metasync_enqueue({said}, change_id => 'line-1')")

    assert caught.value.args[0] == 'change_id "line-1" is pending already, and says something else'
    assert caught.value.detail == f'completion_id: "{said[1:4]}"; what is pending is of "c-1"'
    await queue.settle([finished(await claim_one(queue))])
    assert await queue.next_due_seconds() is None  # no target was made for c-2
    await producer.execute(f"SELECT metasync_enqueue({said}, change_id => 'line-1')")


async def test_the_long_name_is_the_same_function(queue: PostgresQueue, producer: Connection) -> None:
    await producer.execute("SET search_path = ''")
    await producer.fetchval("SELECT metasync.metasync_enqueue('c-1', '{\"label\": \"x\"}')")

    assert await pending_labels(queue) == {"c-1": ["x"]}


ENQUEUE_COLUMNS = [  # $1: a change_id in the place of the column's
    "SELECT metasync.metasync_enqueue(id, '{}', 'merge', coalesce($1, line), line, true) FROM review",
    "SELECT metasync.metasync_enqueue(id, '{}'::json, 'merge', coalesce($1, line), line, true) FROM review",
    "SELECT metasync.metasync_enqueue(id, '{}'::jsonb, 'merge', coalesce($1, line), line, true) FROM review",
]


@pytest.mark.parametrize("enqueue", ENQUEUE_COLUMNS)
async def test_columns_may_have_collations_of_their_own(
    queue: PostgresQueue, producer: Connection, enqueue: str
) -> None:
    await producer.execute('CREATE TABLE review (id text COLLATE "POSIX", line text COLLATE "POSIX")')
    await producer.execute("INSERT INTO review VALUES ('c-1', 'line-1')")

    for change_id, is_new in ((None, True), (None, False), ("line-2", True)):
        assert await producer.fetchval(enqueue, change_id) is is_new
    with pytest.raises(asyncpg.UniqueViolationError):
        await producer.execute("SELECT metasync.metasync_enqueue('c-2', '{}', 'merge', line) FROM review")
    claimed = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
    await queue.settle([finished(each) for each in claimed], remember=True)
    assert await producer.fetchval(enqueue, "line-2") is False


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
async def test_every_valid_change_is_accepted(
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
async def test_every_invalid_change_is_refused_with_a_reason_that_shows_no_value(
    queue: PostgresQueue, producer: Connection, arguments: tuple[Any, ...]
) -> None:
    completion_id, patch, mode, change_id = arguments
    with pytest.raises(InvalidChange):
        MetadataChange(completion_id, patch, mode, change_id)
    text = None if patch is None else json.dumps(patch)

    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.fetchval("SELECT metasync_enqueue($1, $2, $3, $4)", completion_id, text, mode, change_id)

    message, detail = caught.value.args[0], caught.value.detail
    assert message.startswith(("completion_id ", "metadata ", "mode ", "change_id "))
    shown = "NULL" if completion_id is None else json.dumps(completion_id[:256], ensure_ascii=False)
    assert detail == f"completion_id: {shown}"
    assert "secret" not in str(caught.value)
    assert "\n" not in message
    assert (await queue.status()).pending == 0


KEY_TWICE = '{"grade": "secret", "draft": null, "grade": "B"}'


@pytest.mark.parametrize("cast", ["", "::text", "::json", "::varchar"])
@pytest.mark.parametrize("name", ["metasync_enqueue", "metasync.metasync_enqueue"])
async def test_json_comes_as_text_or_json_and_a_key_that_is_there_twice_is_refused(
    queue: PostgresQueue, producer: Connection, cast: str, name: str
) -> None:
    assert await producer.fetchval(f"SELECT {name}('c-1', '{{\"label\": \"x\"}}'{cast})") is True
    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.execute(f"SELECT {name}('c-2', '{KEY_TWICE}'{cast})")

    assert caught.value.args[0] == 'metadata key "grade" is there twice'
    assert caught.value.detail == 'completion_id: "c-2"'
    assert await pending_labels(queue) == {"c-1": ["x"]}


@pytest.mark.parametrize(
    "patch",
    ['{"":"1","":"2"}', '{"a":null,"a":null}', '{"a":null,"a":"1"}', '{"a":"1","\\u0061":null}', '{"a" : [],\n"a":7}'],
)
async def test_a_key_that_is_there_twice_is_refused_in_any_spelling(producer: Connection, patch: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="is there twice"):
        await producer.execute("SELECT metasync_enqueue('c-1', $1)", patch)


WRONG_TYPES = {
    "'c-1', 7": ("metadata must be jsonb, json or JSON text, not integer", '"c-1"'),
    "'c-1'::text, 7.5": ("metadata must be jsonb, json or JSON text, not numeric", '"c-1"'),
    "'c-1', 7, 'merge', 'line-1'::varchar": ("metadata must be jsonb, json or JSON text, not integer", '"c-1"'),
    "'c-1'::varchar, 7, 'merge'::text, 'line-1'::text": ("metadata must be jsonb, json or JSON text", '"c-1"'),
    "'c-1', true, 'replace'": ("metadata must be jsonb, json or JSON text, not boolean", '"c-1"'),
    "'c-1', 'secret'": ("metadata is not valid JSON", '"c-1"'),
    "'c-1', '{\"a\": \"secret'::text": ("metadata is not valid JSON", '"c-1"'),
    "'c-1', '{\"a\": \"\\u0000secret\"}'::json": ("metadata is not valid JSON, or holds a NUL", '"c-1"'),
    "'c-1', '{\"a\": \"\\ud800secret\"}'": ("metadata is not valid JSON, or holds a NUL or half", '"c-1"'),
    "7, '{}'": ("completion_id must be text: cast it, completion_id::text", '"7"'),
    "7::bigint, '{}'::jsonb": ("completion_id must be text", '"7"'),
    "7, '{}'::json, 'merge', 'line-1'": ("completion_id must be text", '"7"'),
    "'6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b'::uuid, '{}'": ("completion_id must be text", '"6ec0bd7f'),
    "'c-1', '{}', change_id => 7": ("change_id must be text, not integer: cast it, change_id::text", '"c-1"'),
    "'c-1', '{}'::jsonb, 'merge', 7::bigint": ("change_id must be text, not bigint", '"c-1"'),
    "'c-1', jsonb_build_object('grade', 7)": ('metadata key "grade" has a value that must be a string', '"c-1"'),
}


@pytest.mark.parametrize("arguments", WRONG_TYPES)
@pytest.mark.parametrize("name", ["metasync_enqueue", "metasync.metasync_enqueue"])
async def test_a_value_of_another_type_gets_a_sentence_that_says_what_to_write(
    queue: PostgresQueue, producer: Connection, arguments: str, name: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
        await producer.execute(f"SELECT {name}({arguments})")

    message, completion_id = WRONG_TYPES[arguments]
    assert caught.value.args[0].startswith(message)
    assert str(caught.value.detail).startswith(f"completion_id: {completion_id}")
    assert "secret" not in str(caught.value)
    assert (await queue.status()).pending == 0


async def test_a_foreign_short_name_is_left_alone_and_reported() -> None:
    async with new_database(empty=True) as url, connected(url) as connection:
        await connection.execute(
            "CREATE FUNCTION public.metasync_enqueue(anyelement) RETURNS text LANGUAGE sql AS 'SELECT 1'"
        )
        said: list[str] = []
        connection.add_log_listener(lambda _, message: said.append(str(message)))
        await connection.execute(PostgresQueue.migration_sql())
        names = await connection.fetchval("SELECT count(*) FROM pg_proc WHERE proname = 'metasync_enqueue'")
    assert [each for each in said if "public.metasync_enqueue was there before" in each]
    assert names == 7


async def test_the_short_names_go_with_the_schema(producer: Connection) -> None:
    await producer.execute("DROP SCHEMA metasync CASCADE")

    assert await producer.fetchval("SELECT count(*) FROM pg_proc WHERE proname = 'metasync_enqueue'") == 0


@pytest.mark.parametrize("completion_id", ["nan", "NaN", "NULL", "None", "nil", "undefined", "Completion_ID"])
async def test_words_for_a_missing_value_are_refused_as_ids(producer: Connection, completion_id: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=r"stands for no value|is the field's name"):
        await producer.execute("SELECT metasync_enqueue($1, '{}')", completion_id)


@pytest.mark.parametrize("change_id", ["nan", "NaT", "NULL", "None", "undefined"])
async def test_words_for_a_missing_value_are_refused_as_change_ids(producer: Connection, change_id: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=f'change_id "{change_id}" stands for no value'):
        await producer.execute("SELECT metasync_enqueue('c-1', '{}', change_id => $1)", change_id)


async def test_a_producer_needs_only_the_right_to_call_the_function(url: str, queue: PostgresQueue) -> None:
    async with new_role(url) as (app, app_url):
        await administer(
            url,
            "GRANT EXECUTE ON FUNCTION metasync.metasync_enqueue"
            f"(text, jsonb, text, text, text, boolean, timestamptz) TO {app};"
            f"GRANT USAGE ON SCHEMA metasync TO {app}",
        )
        async with connected(app_url) as producer:
            await enqueue(producer, "c-1", "short")
            await producer.fetchval("SELECT metasync.metasync_enqueue('c-1', '{\"label\": \"long\"}')")
            for forbidden in ("SELECT FROM metasync.change", "SELECT metasync.begin_append(ARRAY['c-1'])"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await producer.execute(forbidden)

    assert await pending_labels(queue) == {"c-1": ["short", "long"]}


async def test_only_permitted_roles_may_call_the_function(url: str) -> None:
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
    """Let the time pass for which a target without changes is kept."""
    await connection.execute("UPDATE metasync.target SET visible_at = visible_at - interval '1 second'")


async def test_a_target_kept_by_a_transaction_that_rolls_back_is_deleted(
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


async def test_a_put_waits_for_an_earlier_open_transaction_and_follows_it(
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


async def test_a_waiting_put_does_not_block_the_other_completions_of_its_call(
    url: str, queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-0", "a"), change("c-1", "b")])
    async with connected(url) as hung, connected(url) as watching:
        transaction = hung.transaction()
        await transaction.start()
        await enqueue(hung, "c-1", "hung")
        putting = asyncio.create_task(queue.put([change("c-0", "d"), change("c-1", "e")]))
        await is_waiting(watching, 1)
        await producer.execute("SET lock_timeout = '2s'")  # less than the put's patience
        await enqueue(producer, "c-0", "c")
        assert not putting.done()
        await transaction.commit()
        await putting

    assert await pending_labels(queue) == {"c-0": ["a", "c", "d"], "c-1": ["b", "hung", "e"]}


async def test_a_put_and_a_producer_with_the_same_change_ids_both_succeed(
    url: str, queue: PostgresQueue, producer: Connection
) -> None:
    async with connected(url) as watching, asyncio.TaskGroup() as group, producer.transaction():
        await producer.execute("SET LOCAL deadlock_timeout = '60s'")
        await producer.execute("SELECT metasync_enqueue('c-1', '{}', change_id => 'line-2')")
        putting = group.create_task(queue.put([change("c-2", change_id="line-1"), change("c-3", change_id="line-2")]))
        await is_waiting(watching, 1)
        assert await producer.fetchval("SELECT metasync_enqueue('c-4', '{}', change_id => 'line-1')") is True

    assert putting.result() == Stored(0, 0, conflicts=(0, 1))


async def test_a_put_gives_up_on_a_transaction_that_stays_open_and_stores_nothing(
    url: str, producer: Connection
) -> None:
    async with await PostgresQueue.open(url, timeout_seconds=0.5) as queue:
        async with producer.transaction():
            await enqueue(producer, "c-1", "first")
            with pytest.raises(QueueUnavailable, match="it may be a producer's that stays open"):
                await queue.put([change("c-0"), change("c-1", "second")])

        assert await pending_labels(queue) == {"c-1": ["first"]}


async def test_two_puts_of_the_same_change_ids_in_any_order_both_succeed(url: str) -> None:
    async with await PostgresQueue.open(url) as one, await PostgresQueue.open(url) as other:
        ids = [f"line-{i}" for i in range(200)]
        forth = [change(f"forth-{each}", change_id=each) for each in ids]
        back = [change(f"back-{each}", change_id=each) for each in reversed(ids)]
        for _ in range(10):
            stored = await asyncio.gather(one.put(forth), other.put(back))
            assert sorted(each.added for each in stored) == [0, 200]
            claims = await claim(one, 1_000)
            assert len(claims) == 200  # and no target of changes that were not stored
            assert await one.settle([finished(claimed) for claimed in claims]) == []


async def test_a_change_under_a_change_id_that_is_just_done_is_stored(
    queue: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.put([change("c-1", "first", change_id="line-1")])
    claims = await claim(queue)
    fetch = asyncpg.Connection.fetch

    async def settle_first(connection: Connection, query: str, *arguments: object) -> object:
        if "IS DISTINCT FROM" in query and claims:
            assert await queue.settle([finished(claims.pop())]) == []
        return await fetch(connection, query, *arguments)

    monkeypatch.setattr(asyncpg.Connection, "fetch", settle_first)
    again = [change("c-1", "second", change_id="line-1"), change("c-1", "third")]

    assert await queue.put(again) == Stored(2, 0)
    assert not claims
    assert await pending_labels(queue) == {"c-1": ["second", "third"]}


async def test_in_a_fixed_snapshot_a_change_joins_a_target_claimed_since(
    queue: PostgresQueue, producer: Connection
) -> None:
    await queue.put([change("c-1", "old")])
    async with producer.transaction(isolation="repeatable_read"):
        await producer.execute("SELECT FROM metasync.target")
        claimed = await claim_one(queue)
        await enqueue(producer, "c-1", "new")
        assert await queue.settle([finished(claimed)]) == []

    assert await pending_labels(queue) == {"c-1": ["new"]}


async def test_in_a_fixed_snapshot_an_enqueue_fails_if_its_target_was_replaced_since(
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


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
@pytest.mark.parametrize("since", [change("c-1", "newer"), change("c-2", "newer", change_id="line-1")])
async def test_in_a_fixed_snapshot_an_enqueue_fails_on_newer_rows_and_may_be_repeated(
    queue: PostgresQueue,
    producer: Connection,
    isolation: Literal["repeatable_read", "serializable"],
    since: MetadataChange,
) -> None:
    sql = "SELECT metasync_enqueue('c-1', '{}', change_id => 'line-1')"
    transaction = producer.transaction(isolation=isolation)
    await transaction.start()
    await producer.execute("SELECT FROM metasync.target")
    await queue.put([since])
    with pytest.raises(asyncpg.SerializationError):
        await producer.execute(sql)
    await transaction.rollback()
    if since.change_id is None:
        async with producer.transaction(isolation=isolation):
            assert await producer.fetchval(sql) is True
    else:
        with pytest.raises(asyncpg.UniqueViolationError):
            await producer.execute(sql)

    assert (await queue.status()).pending == (2 if since.change_id is None else 1)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_in_a_fixed_snapshot_changes_are_in_the_order_of_commits(
    url: str, queue: PostgresQueue, producer: Connection, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    await queue.put([change("c-1", "old")])
    async with connected(url) as second, connected(url) as watching, asyncio.TaskGroup() as group:
        late = second.transaction(isolation=isolation)
        await late.start()
        await second.execute("SELECT FROM metasync.note")  # its snapshot is older than the other's
        async with producer.transaction(isolation=isolation):
            await enqueue(producer, "c-1", "first")
            enqueuing = group.create_task(enqueue(second, "c-1", "second"))
            await is_waiting(watching, 1)
        await enqueuing
        await late.commit()

    assert await pending_labels(queue) == {"c-1": ["old", "first", "second"]}


async def test_in_a_fixed_snapshot_an_enqueue_makes_a_new_target_for_a_deleted_one(
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
        producing: how many producers run.
        committed: labels of the committed changes.
        applied: by completion, number and label of each change, in the order of being applied.
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
                # In the order of ids, as the documentation asks for: otherwise two may wait for each other.
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


async def test_late_commits_and_rollbacks_that_race_with_a_worker_lose_nothing(url: str, queue: PostgresQueue) -> None:
    race = OutboxRace(url, queue)
    async with asyncio.TaskGroup() as group:
        for i in range(race.producing):
            group.create_task(race.produce(f"p{i}", random.Random(i)))
        group.create_task(race.work())

    assert sorted(label for done in race.applied.values() for _, label in done) == sorted(race.committed)
    for done in race.applied.values():
        assert done == sorted(done)
