"""Settings of a server, a database or a role do not weaken the queue's promises."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tests.queue.helpers import EVERY_LETTER, bury, change, claim, claim_one, finished, letters, pending_labels
from tests.queue.postgres.test_opening import GRANTS
from tests.queue.postgres_server import PostgresServer, administer, connected, new_database, new_role
from worker.queue import QueueUnusable
from worker.queue.postgres import PostgresQueue

CARELESS = {"synchronous_commit": "off", "wal_writer_delay": "10s"}  # other tables are written late


@asynccontextmanager
async def crashing(server: PostgresServer) -> AsyncIterator[PostgresQueue]:
    """Open a queue, and let the server crash at the end of the block."""
    async with await PostgresQueue.open(server.url()) as queue:
        yield queue
        server.stop("QUIT")
        server.start(**CARELESS)


async def test_confirmed_puts_survive_a_crash_with_synchronous_commit_off() -> None:
    with PostgresServer.running(None, **CARELESS) as server:
        async with crashing(server) as queue:
            await queue.put([change("c-1", "a"), change("c-2", "b")])
        async with crashing(server) as queue:
            assert await pending_labels(queue) == {"c-1": ["a"], "c-2": ["b"]}  # which is a claim, too
        async with crashing(server) as queue:
            assert (await queue.status()).in_flight == 2
            await queue.put([change("c-3")])
            assert await queue.settle([finished(await claim_one(queue))]) == []
        async with crashing(server) as queue:
            assert (await queue.status()).pending == 2
            await bury(queue, change("c-4"))
        async with await PostgresQueue.open(server.url()) as queue:
            assert [letter.completion_id for letter in await letters(queue)] == ["c-4"]
            assert await queue.purge_dead(EVERY_LETTER) == 1


@pytest.mark.parametrize(
    ("setting", "value", "effective", "kept"),
    [
        ("synchronous_commit", "off", "synchronous_commit", "on"),
        ("default_transaction_isolation", "serializable", "transaction_isolation", "read committed"),
        ("statement_timeout", "1h", "statement_timeout", "9s"),
        ("lock_timeout", "1h", "lock_timeout", "250ms"),
        ("idle_in_transaction_session_timeout", "1h", "idle_in_transaction_session_timeout", "10s"),
        ("row_security", "on", "row_security", "off"),
    ],
)
async def test_the_queues_transactions_override_the_databases_settings(
    setting: str, value: str, effective: str, kept: str
) -> None:
    async with new_database() as url:
        async with connected(url) as admin:
            name = await admin.fetchval("SELECT current_database()")
            await admin.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        async with await PostgresQueue.open(url, timeout_seconds=10) as queue:
            found = await queue._connections.transact(lambda connection: connection.fetchval(f"SHOW {effective}"))

    assert found == kept


# What fits better than the server's own function, which takes anyarray.
TRAP = """
    CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'this runs as %', current_user; END $$
"""


async def test_another_roles_function_of_a_fitting_name_is_not_run() -> None:
    async with new_database(empty=True) as url, new_role(url) as (role, role_url):
        await administer(url, f"GRANT CREATE, USAGE ON SCHEMA public TO {role}")
        await administer(role_url, TRAP)
        async with await PostgresQueue.open(url) as queue:
            await queue.put([change("c-1", "a")])

            assert await queue.settle([finished(await claim_one(queue))]) == []


async def test_rows_that_a_policy_hides_are_an_error_and_no_empty_queue() -> None:
    async with new_database() as url, new_role(url) as (role, role_url):
        await administer(url, GRANTS.format(role=role))
        async with await PostgresQueue.open(role_url) as queue:
            await queue.put([change("c-1", "a")])
            await administer(url, "ALTER TABLE metasync.target ENABLE ROW LEVEL SECURITY")
            for call in (queue.status, queue.next_due_seconds, partial(claim, queue)):
                with pytest.raises(QueueUnusable, match="row-level security policy"):
                    await call()

            await administer(url, "ALTER TABLE metasync.target DISABLE ROW LEVEL SECURITY")
            assert await pending_labels(queue) == {"c-1": ["a"]}


async def test_history_is_kept_for_a_week() -> None:
    week = 7 * 24 * 60
    async with new_database() as url, await PostgresQueue.open(url) as queue, connected(url) as between:
        minute = await between.fetchval("SELECT floor(extract(epoch FROM statement_timestamp()) / 60)::bigint")
        await between.executemany(
            "INSERT INTO metasync.history (minute, part, applied, unchanged, dead) VALUES ($1, 0, 1, 1, 1)",
            [(minute - week - 2,), (minute - week + 2,)],
        )
        await queue.put([change("c-1")])
        await queue.settle([finished(await claim_one(queue))])

        kept = [row["minute"] for row in await between.fetch("SELECT minute FROM metasync.history ORDER BY minute")]
        assert kept[0] == minute - week + 2
        assert len(kept) == 2
