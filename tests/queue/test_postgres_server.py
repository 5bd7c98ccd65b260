"""A test sees nothing of the test that had its database before."""

import asyncpg
import pytest

from tests.queue.helpers import change, claim, finished
from tests.queue.postgres_server import administer, connected, lent_database, save
from worker.queue.postgres import PostgresQueue

TABLES = "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'S')"
CHANGES = [
    "CREATE TABLE public.more ()",
    "CREATE SCHEMA more",
    "CREATE FUNCTION public.more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION metasync.next_lease() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "ALTER TABLE metasync.change ALTER mode SET DEFAULT 'merge'",
    "ALTER TABLE metasync.change ALTER mode DROP NOT NULL",
    "ALTER TABLE metasync.change ADD CHECK (mode <> '')",
    "ALTER TABLE metasync.change SET (autovacuum_enabled = off)",
    "ALTER TABLE metasync.hurried DISABLE TRIGGER hurry",
    "ALTER SEQUENCE metasync.lease INCREMENT 2",
    "CREATE OR REPLACE RULE more AS ON INSERT TO metasync.note DO ALSO NOTIFY more",
    "DROP INDEX metasync.change_target",
    "DROP SCHEMA metasync CASCADE",
    "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "GRANT SELECT ON metasync.change TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION metasync.next_lease FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "ANALYZE",
    "TRUNCATE metasync.change",
    "UPDATE metasync.migration SET version = version",
    "INSERT INTO metasync.migration (version) VALUES (99)",
    "INSERT INTO metasync.note SELECT i, repeat('x', 100), now() FROM generate_series(1, 2000) AS i",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END $$",
]


async def contents(url: str) -> dict[str, object]:
    """All rows, and where the sequences are."""
    async with connected(url) as connection:
        tables = [table for (table,) in await connection.fetch(TABLES)]
        return {table: await connection.fetch(f"SELECT * FROM {table}") for table in tables}  # noqa: S608 -- our own


async def test_a_database_that_is_lent_again_is_as_it_was() -> None:
    async with lent_database() as url:
        fresh = await contents(url)
        async with await PostgresQueue.open(url) as queue:
            await queue.put([change("c-1", change_id="one"), change("c-2")], batch="b")
            await queue.settle([finished((await claim(queue))[0])], remember=True)
            await queue.write_note("name", "text")
            await queue.take_quota(3, per_minute=60.0, ahead_seconds=9.0)
        assert await contents(url) != fresh
        left = await asyncpg.connect(url)
        await left.execute("BEGIN; LOCK TABLE metasync.change")

    async with lent_database() as again:
        assert again == url
        assert await contents(again) == fresh
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await left.execute("COMMIT")
        left.terminate()


@pytest.mark.parametrize("sql", CHANGES)
async def test_a_database_with_other_changes_is_not_lent_again(sql: str) -> None:
    async with lent_database() as url:
        await administer(url, sql)

    async with lent_database() as another:
        assert another != url


async def test_a_database_whose_content_was_saved_is_not_lent_again() -> None:
    async with lent_database() as url:
        await save(url)

    async with lent_database() as another:
        assert another != url
