"""Opening a PostgreSQL queue: what is created, what is refused, and the messages."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.queue.helpers import change, claim, finished, pending_labels
from tests.queue.postgres_server import administer, connected, is_waiting, new_database, new_role, with_user
from worker.queue import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, migration_sql, open_queue
from worker.queue.postgres import PostgresQueue, migrate
from worker.queue.statements import read_migrations

# The rights of a role that does not own the schema.
GRANTS = """
    GRANT USAGE ON SCHEMA metasync TO {role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA metasync TO {role};
    GRANT USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA metasync TO {role};
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA metasync TO {role};
"""
DATABASE = re.compile(r"metasync_test_\w+")


@pytest.fixture
async def empty() -> AsyncIterator[str]:
    async with new_database(empty=True) as url:
        yield url


async def refusal(url: str, kind: type[QueueError] = QueueUnusable) -> str:
    """Try to open it, and return the error's sentence."""
    with pytest.raises(kind) as caught:
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

    assert await version(empty) == read_migrations("worker.queue.postgres")[-1][0]


async def test_the_scheme_postgres_is_accepted(url: str) -> None:
    await use(url.replace("postgresql:", "postgres:"))


async def test_changes_are_there_after_opening_again(url: str) -> None:
    async with open_queue(url) as queue:
        await queue.put([change("c-1", "a")])
    async with open_queue(url) as queue:
        assert await pending_labels(queue) == {"c-1": ["a"]}


async def test_the_repr_shows_the_address_and_whether_it_is_open(url: str) -> None:
    async with await PostgresQueue.open(url) as queue:
        assert re.fullmatch(r"<PostgresQueue postgresql://\S*/metasync_test_\w+ \[open\]>", repr(queue))

    assert repr(queue).endswith(" [closed]>")


async def test_concurrent_openings_make_one_schema(empty: str) -> None:
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


async def test_the_printed_migration_runs_no_function_of_another_role(empty: str) -> None:
    """Whoever runs it may be a superuser."""
    async with new_role(empty) as (role, role_url):
        await administer(empty, f"GRANT CREATE, USAGE ON SCHEMA public TO {role}")
        trap = "BEGIN RAISE EXCEPTION 'this runs as %', current_user; END"
        await administer(
            role_url, f"CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS $${trap}$$"
        )
        await administer(empty, migration_sql(empty))
        await use(empty)


async def test_a_role_without_rights_gets_an_error_that_says_so(url: str) -> None:
    async with new_role(url) as (_, role_url):
        assert "permission denied for schema metasync" in await refusal(role_url)


async def test_a_role_that_may_not_make_the_missing_queue_is_told_so_before_it_tries(empty: str) -> None:
    async with new_role(empty) as (_, role_url):
        with pytest.raises(QueueUnusable, match="there is none, and the role may not make one"):
            await PostgresQueue.open(role_url, create=False)


async def test_a_database_without_a_schema_public_has_no_short_name_but_a_queue(empty: str) -> None:
    await administer(empty, "DROP SCHEMA public")
    await use(empty)

    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT metasync.metasync_enqueue('c-1', '{}')") is True


SQUAT = """
    CREATE FUNCTION public.metasync_enqueue({parameters}) RETURNS boolean LANGUAGE sql AS 'SELECT true'
"""


OURS = "completion_id text, patch jsonb, mode text DEFAULT 'merge', change_id text DEFAULT NULL"
OF_LITERALS = "completion_id text, patch text"  # a call with two literals goes to this one, where there are both


@pytest.mark.parametrize(("when", "parameters"), [("before", OURS), ("before", OF_LITERALS), ("after", OF_LITERALS)])
async def test_a_foreign_short_name_is_reported_with_its_owner(empty: str, parameters: str, when: str) -> None:
    if when == "after":
        await use(empty)
    async with new_role(empty) as (role, role_url):
        await administer(empty, f"GRANT CREATE, USAGE ON SCHEMA public TO {role}")
        await administer(role_url, SQUAT.format(parameters=parameters))
        for _ in range(2):  # when the schema is made, and whenever the queue is opened
            async with await PostgresQueue.open(empty) as queue:
                [warning] = queue.warnings
            assert re.match(rf"public\.metasync_enqueue is not the queue's own: .* the role '{role}', has", warning)
        await administer(empty, f"DROP OWNED BY {role}")
        async with await PostgresQueue.open(empty) as queue:
            assert queue.warnings == ()


async def test_dropping_the_schema_leaves_nothing(url: str) -> None:
    await administer(url, "DROP SCHEMA metasync CASCADE")

    async with connected(url) as connection:
        left = await connection.fetch("SELECT proname FROM pg_proc WHERE proname LIKE 'metasync%'")
    assert left == []
    await use(url)


async def test_a_newer_schema_is_refused_and_kept(url: str) -> None:
    newer = read_migrations("worker.queue.postgres")[-1][0] + 1
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


RECORD = "INSERT INTO metasync.migration (version) VALUES ({});"
LATEST, _ = read_migrations("worker.queue.postgres")[-1]
LATER = (
    (LATEST + 1, "ALTER TABLE metasync.change ADD COLUMN source text;" + RECORD.format(LATEST + 1)),
    (LATEST + 2, "CREATE INDEX ON metasync.change (source);" + RECORD.format(LATEST + 2)),
)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release with two more migrations."""
    monkeypatch.setattr(migrate, "read_migrations", lambda package: (*read_migrations(package), *LATER))


async def put_before(url: str) -> None:
    """Leave a change pending, and its plans in the server."""
    async with open_queue(url) as queue:
        await queue.put([change("c-1", "a")])


async def works_as_before(url: str) -> None:
    """Check that the changes from before are pending, and that the queue works."""
    async with open_queue(url) as again:
        await again.put([change("c-1", "b")])
        assert await pending_labels(again) == {"c-1": ["a", "b"]}


async def test_a_later_migration_is_run_once_and_keeps_what_is_pending(
    url: str, request: pytest.FixtureRequest
) -> None:
    await put_before(url)
    request.getfixturevalue("later")

    # Several start at once, and once again: to add the column twice would fail.
    for queue in await asyncio.gather(*(PostgresQueue.open(url) for _ in range(4))):
        await queue.close()
    assert await version(url) == LATEST + 2
    await works_as_before(url)


async def test_the_printed_migration_makes_or_upgrades_a_schema_and_names_its_version(
    url: str, empty: str, request: pytest.FixtureRequest
) -> None:
    await put_before(url)
    request.getfixturevalue("later")
    printed = migration_sql(url)
    for place, was in ((url, LATEST), (empty, 0), (url, LATEST + 2)):
        said: asyncio.Queue[str] = asyncio.Queue()
        async with connected(place) as admin:
            admin.add_log_listener(lambda _, message: said.put_nowait(message.message))  # noqa: B023 -- at once
            await admin.execute(printed)
        assert f"the schema metasync is {was}, and will be {LATEST + 2}" in [
            said.get_nowait() for _ in range(said.qsize())
        ]
        assert await version(place) == LATEST + 2
    await works_as_before(url)
    await use(empty)


async def test_the_printed_migration_refuses_a_newer_schema(url: str) -> None:
    await administer(url, "INSERT INTO metasync.migration (version) SELECT max(version) + 1 FROM metasync.migration")
    with pytest.raises(asyncpg.RaiseError, match=f"a newer metasync made the schema: {LATEST + 1}"):
        await administer(url, migration_sql(url))


async def test_a_migration_behind_a_transaction_that_stays_open_does_not_stop_producers(
    url: str, request: pytest.FixtureRequest
) -> None:
    await put_before(url)
    request.getfixturevalue("later")
    async with connected(url) as idle, connected(url) as producer, asyncio.TaskGroup() as group:
        async with idle.transaction():
            await idle.execute("SELECT FROM metasync.change")
            migrating = group.create_task(PostgresQueue.open(url, timeout_seconds=3_600))
            await is_waiting(producer, 1)
            await producer.execute("SET lock_timeout = '5s'; SELECT metasync_enqueue('c-2', '{}')")
            assert not migrating.done()
        await (await migrating).close()

    assert await version(url) == LATEST + 2


async def test_a_migration_that_runs_out_of_time_names_the_step_and_the_option(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = (LATEST + 2, "SELECT pg_sleep(60);" + RECORD.format(LATEST + 2))
    monkeypatch.setattr(migrate, "read_migrations", lambda package: (*read_migrations(package), LATER[0], long))
    words = rf"its schema is {LATEST + 1} of {LATEST + 2}, .*`metasync migrate --store-timeout 1h` gives it more time"
    with pytest.raises(QueueUnavailable, match=words):
        await PostgresQueue.open(url, timeout_seconds=1)

    assert await version(url) == LATEST + 1  # done steps are not repeated


async def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    latest, _ = read_migrations("worker.queue.postgres")[-1]
    later = (latest + 1, "DROP TABLE metasync.note; DROP TABLE metasync.missing;")
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "read_migrations", lambda package: (*read_migrations(package), later))
        assert 'table "missing" does not exist' in await refusal(url)

    assert await version(url) == latest
    async with open_queue(url) as queue:
        assert await queue.read_notes() == {}


async def test_a_schema_without_one_of_its_tables_is_refused(url: str) -> None:
    async with open_queue(url) as queue:
        await administer(url, "DROP TABLE metasync.change CASCADE")

        with pytest.raises(QueueUnusable, match=r"schema is not what it should be \(relation .* does not exist\)"):
            await queue.put([change("c-1")])


async def test_a_foreign_schema_of_that_name_is_refused_and_kept(empty: str) -> None:
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
    assert (await refusal(url, QueueMisnamed)).startswith(
        "the queue URL must be postgresql://user:password@host:5432/database"
    )


async def test_an_invalid_option_is_refused(url: str) -> None:
    assert (
        await refusal(f"{url}&listen=perhaps", QueueMisnamed) == "the option listen of the queue URL must be on or off"
    )
    assert "makes no sense to the driver" in await refusal(f"{url}&sslmode=perhaps", QueueMisnamed)
    assert 'unrecognized configuration parameter "perhaps"' in await refusal(f"{url}&perhaps=secret", QueueMisnamed)
    assert "refuses an option of the URL" in await refusal(f"{url}&work_mem=perhaps", QueueMisnamed)


async def test_a_process_without_a_user_name_is_told_to_put_one_into_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGUSER", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def nameless(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", nameless)  # as for a container that runs as any user
    said = await refusal("postgresql://127.0.0.1:1/database", QueueMisnamed)
    assert "the URL names no user, and the one that this process runs as has no name" in said
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(QueueUnavailable, match="cannot be reached"):
        async with open_queue("postgresql://somebody@127.0.0.1:1/database"):
            pass


async def test_a_server_that_refuses_connections_is_unavailable(tmp_path: Path) -> None:
    for url in (f"postgresql:///database?host={tmp_path}", "postgresql://user:secret@127.0.0.1:1/database"):
        with pytest.raises(QueueUnavailable, match="cannot be reached") as caught:
            async with open_queue(url, timeout_seconds=5):
                pass
        assert "secret" not in str(caught.value)


def test_a_missing_driver_gives_an_error_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("worker.queue.postgres")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("worker.queue.postgres")
    monkeypatch.setitem(sys.modules, "asyncpg", None)  # as if it were not there

    with pytest.raises(QueueMisnamed, match=r"needs asyncpg: install metasync with its extra postgres"):
        asyncio.run(use("postgresql://host/database"))
    with pytest.raises(QueueMisnamed, match=r"install metasync with its extra postgres"):
        migration_sql("postgres://host/database")
