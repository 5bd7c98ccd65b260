"""Settings of a server, a database or a role do not weaken the queue's promises."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.queue.helpers import EVERY_LETTER, bury, change, claim_one, finished, letters, pending_labels
from tests.queue.postgres_server import PostgresServer, connected, new_database
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
