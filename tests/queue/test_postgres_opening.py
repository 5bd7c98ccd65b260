"""Opening a PostgreSQL queue: what is made, what is refused, and what the refusal says."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.queue.helpers import change, claim, finished, labels, pending_labels
from tests.queue.postgres_server import administer, connected, new_database, new_role, with_user
from worker.queue import QueueUnavailable, QueueUnusable, migration_sql, open_queue
from worker.queue.base import Claim, Stored
from worker.queue.postgres import PostgresQueue, migrate
from worker.queue.postgres.statements import migrations

# What a role needs that does not own the schema.
GRANTS = """
    GRANT USAGE ON SCHEMA metasync TO {role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA metasync TO {role};
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA metasync TO {role};
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA metasync TO {role};
"""
DATABASE = re.compile(r"metasync_test_\w+")


@pytest.fixture
async def empty() -> AsyncIterator[str]:
    async with new_database(empty=True) as url:
        yield url


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        yield url


async def refusal(url: str) -> str:
    """Try to open it, and give the sentence that says why it cannot be."""
    with pytest.raises(QueueUnusable) as caught:
        async with open_queue(url, timeout_seconds=5):
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    return message


async def use(url: str) -> None:
    """Take a change through the queue."""
    async with open_queue(url) as queue:
        await queue.put([change("c-1", "a")])
        [claimed] = await claim(queue)
        assert await queue.settle([finished(claimed)]) == []


async def version(url: str) -> int | None:
    async with connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('metasync.migration')") is None:
            return None
        found: int = await connection.fetchval("SELECT max(version) FROM metasync.migration")
        return found


async def test_an_empty_database_becomes_a_queue(empty: str) -> None:
    await use(empty)

    assert await version(empty) == migrations()[-1][0]


async def test_postgres_will_do_for_the_scheme(url: str) -> None:
    await use(url.replace("postgresql:", "postgres:"))


async def test_what_was_put_is_there_after_opening_again(url: str) -> None:
    async with open_queue(url) as queue:
        await queue.put([change("c-1", "a")])
    async with open_queue(url) as queue:
        assert await pending_labels(queue) == {"c-1": ["a"]}


async def test_it_shows_where_it_is_and_whether_it_is_open(url: str) -> None:
    async with await PostgresQueue.open(url) as queue:
        assert re.fullmatch(r"<PostgresQueue postgresql://\S*/metasync_test_\w+ \[open\]>", repr(queue))

    assert repr(queue).endswith(" [closed]>")


async def test_any_number_may_make_the_schema_together(empty: str) -> None:
    queues = await asyncio.gather(*(PostgresQueue.open(empty) for _ in range(8)))
    await asyncio.gather(*(queue.put([change("c-1")]) for queue in queues))

    assert [(await queue.status()).pending for queue in queues] == [8] * 8
    await asyncio.gather(*(queue.close() for queue in queues))


async def test_the_printed_migration_makes_a_queue_for_a_role_that_could_not(empty: str) -> None:
    async with new_role(empty) as (role, role_url):
        assert re.search("lacks a right .*metasync migrate", await refusal(role_url))
        assert await version(empty) is None

        await administer(empty, migration_sql(empty) + GRANTS.format(role=role))
        await use(role_url)


async def test_a_worker_without_the_rights_is_told_so(url: str) -> None:
    async with new_role(url) as (_, role_url):
        assert "permission denied for schema metasync" in await refusal(role_url)


async def test_a_database_without_a_schema_public_has_no_short_name_but_a_queue(empty: str) -> None:
    await administer(empty, "DROP SCHEMA public")
    await use(empty)

    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT metasync.metasync_enqueue('c-1', '{}')") is True


async def test_dropping_the_schema_leaves_nothing(url: str) -> None:
    await administer(url, "DROP SCHEMA metasync CASCADE")

    async with connected(url) as connection:
        left = await connection.fetch("SELECT proname FROM pg_proc WHERE proname LIKE 'metasync%'")
    assert left == []
    await use(url)


async def test_a_newer_schema_is_refused_and_kept(url: str) -> None:
    newer = migrations()[-1][0] + 1
    await administer(url, "INSERT INTO metasync.migration (version) SELECT max(version) + 1 FROM metasync.migration")

    assert re.search(rf"a newer metasync made it \(schema {newer}, .*upgrade", await refusal(url))
    assert await version(url) == newer


async def test_an_open_queue_works_on_through_a_migration_that_only_adds(url: str) -> None:
    async with open_queue(url) as queue:
        await queue.put([change(f"c-{i}") for i in range(20)])
        for _ in range(8):  # by then, the server keeps the plans of the statements
            [claimed] = await claim(queue, 1)
            await queue.settle([finished(claimed)])
        await administer(
            url,
            """
            ALTER TABLE metasync.target ADD COLUMN priority integer NOT NULL DEFAULT 0;
            ALTER TABLE metasync.change ADD COLUMN source text;
            ALTER TABLE metasync.dead_letter ADD COLUMN source text;
            INSERT INTO metasync.migration (version) VALUES (1000);
            """,
        )
        await queue.put([change("c-20")])
        claims = await claim(queue)
        assert len(claims) == 13
        assert await queue.settle([finished(claimed) for claimed in claims]) == []


async def test_what_was_pending_before_targets_had_numbers_is_pending_afterwards(empty: str) -> None:
    await administer(empty, "".join(sql for version, sql in migrations() if version < 4))
    await administer(
        empty,
        """
        SELECT metasync.metasync_enqueue('c-' || i % 50, jsonb_build_object('label', i::text), 'merge', 'line-' || i)
        FROM generate_series(0, 149) AS i;
        UPDATE metasync.target
        SET lease = nextval('metasync.lease'), owner = 'worker', visible_at = now() + interval '1 hour'
        WHERE completion_id = 'c-7';
        """,
    )

    async with open_queue(empty) as queue, connected(empty) as connection:
        assert await version(empty) == migrations()[-1][0]
        assert (await queue.status()).in_flight == 3
        lease = await connection.fetchval("SELECT lease FROM metasync.target WHERE completion_id = 'c-7'")
        assert await queue.extend([Claim("c-7", lease, 0, (), 0.0)], lease_seconds=0) == []
        assert await queue.put([change("c-7", "again", change_id="line-57"), change("new", "x")]) == Stored(1, 1)
        claims = await claim(queue)
        assert {claimed.completion_id: labels(claimed) for claimed in claims} == {
            **{f"c-{i}": [str(i), str(i + 50), str(i + 100)] for i in range(50)},
            "new": ["x"],
        }
        assert await queue.settle([finished(claimed) for claimed in claims]) == []
        for left in ("TABLE metasync.completion", "TABLE metasync.target", "TABLE metasync.change"):
            assert await connection.fetch(left) == []


async def test_a_schema_that_lost_a_table_is_refused_when_that_is_met(url: str) -> None:
    async with open_queue(url) as queue:
        await administer(url, "DROP TABLE metasync.change CASCADE")

        with pytest.raises(QueueUnusable, match=r"schema is not what it should be \(relation .* does not exist\)"):
            await queue.put([change("c-1")])


async def test_a_schema_of_that_name_with_other_things_in_it_is_refused_and_kept(empty: str) -> None:
    await administer(empty, "CREATE SCHEMA metasync; CREATE TABLE metasync.target (theirs text)")

    assert 'relation "target" already exists' in await refusal(empty)
    assert await version(empty) is None


async def test_a_database_that_does_not_hold_unicode_is_refused(empty: str) -> None:
    name = f"{DATABASE.findall(empty)[0]}_latin"
    await administer(empty, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        found = await refusal(DATABASE.sub(name, empty))
        assert "the database's encoding is LATIN1; make one with ENCODING 'UTF8'" in found
    finally:
        await administer(empty, f"DROP DATABASE {name}")


async def test_a_server_that_is_too_old_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "_OLDEST_SERVER", 1_000)

    assert re.search(r"the server is PostgreSQL \d+, older than 1000", await refusal(empty))
    assert await version(empty) is None


async def test_a_missing_database_is_named(url: str) -> None:
    assert 'database "nowhere" does not exist' in await refusal(DATABASE.sub("nowhere", url))


async def test_an_unknown_role_is_refused(url: str) -> None:
    assert "the server does not let us in" in await refusal(with_user(url, "nobody_here:secret"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:",
        "postgresql:host/database",
        "postgresql://user:sec/ret@host/secret",
        "postgresql://user:sec#ret@host/secret",
        "postgresql://user:1?secret@host/secret",
        "postgresql://user:secret@secret@host/database",
        "postgresql://user:secret",
        "postgresql://[secret/database",
        "postgresql://host/database#secret",
    ],
)
async def test_a_url_of_another_form_is_refused_without_showing_it(url: str) -> None:
    assert (await refusal(url)).startswith("the queue URL must be postgresql://user:password@host:5432/database")


async def test_an_option_that_makes_no_sense_is_refused(url: str) -> None:
    assert await refusal(f"{url}&listen=perhaps") == "the option listen of the queue URL must be on or off"
    assert "makes no sense to the driver" in await refusal(f"{url}&sslmode=perhaps")
    assert 'unrecognized configuration parameter "perhaps"' in await refusal(f"{url}&perhaps=secret")
    assert "refuses an option of the URL" in await refusal(f"{url}&work_mem=perhaps")


async def test_no_server_is_a_matter_of_waiting(tmp_path: Path) -> None:
    for url in (f"postgresql:///database?host={tmp_path}", "postgresql://user:secret@127.0.0.1:1/database"):
        with pytest.raises(QueueUnavailable, match="cannot be reached") as caught:
            async with open_queue(url, timeout_seconds=5):
                pass
        assert "secret" not in str(caught.value)


def test_a_missing_driver_is_a_matter_of_installing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("worker.queue.postgres")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("worker.queue.postgres")
    monkeypatch.setitem(sys.modules, "asyncpg", None)  # as if it were not there

    with pytest.raises(QueueUnusable, match=r"needs asyncpg: pip install metasync\[postgres\]"):
        asyncio.run(use("postgresql://host/database"))
    with pytest.raises(QueueUnusable, match=r"pip install metasync\[postgres\]"):
        migration_sql("postgres://host/database")
