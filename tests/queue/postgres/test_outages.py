"""A PostgreSQL server that goes down, hangs, refuses or is full, and callers who stop waiting."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import asyncpg
import pytest

from tests.queue.helpers import change, claim, finished, pending_labels
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import (
    PostgresServer,
    administer,
    connected,
    is_waiting,
    new_role,
    sessions,
)
from worker.queue import QueueMisnamed, QueueUnavailable, QueueUnusable, QueueUnwritable, Settlement, Stored
from worker.queue.postgres import PostgresQueue, operations
from worker.queue.postgres.connections import MAX_CONNECTIONS, Connection

OURS = "application_name = 'metasync'"
KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'metasync'
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop, and has to start again."""
    with PostgresServer.running() as server:
        yield server


async def locked(connection: Connection) -> None:
    """Keep every put waiting until the connection's transaction ends."""
    await connection.execute("BEGIN; LOCK metasync.completion IN EXCLUSIVE MODE")


async def test_idle_connections_that_were_lost_are_replaced_silently(queue: PostgresQueue, admin: Connection) -> None:
    await asyncio.gather(*(queue.put([change(f"c-{i}")]) for i in range(MAX_CONNECTIONS)))
    await admin.execute(KILL)

    await asyncio.gather(*(queue.put([change(f"c-{i}")]) for i in range(MAX_CONNECTIONS)))
    assert (await queue.status()).pending == 2 * MAX_CONNECTIONS


async def test_a_call_whose_connection_is_lost_fails_and_the_next_one_works(
    queue: PostgresQueue, admin: Connection
) -> None:
    await locked(admin)
    putting = asyncio.create_task(queue.put([change("c-1", "lost")]))
    await is_waiting(admin, 1)
    await admin.execute(KILL)
    with pytest.raises(QueueUnavailable, match=r"the connection was lost .*administrator command"):
        await putting
    await admin.execute("ROLLBACK")

    await queue.put([change("c-1", "stored")])
    assert await pending_labels(queue) == {"c-1": ["stored"]}


@pytest.mark.parametrize("signal", ["INT", "QUIT"])
async def test_after_a_stop_or_a_crash_the_server_has_all_changes(server: PostgresServer, signal: str) -> None:
    async with await PostgresQueue.open(server.url(), timeout_seconds=5) as queue:
        await queue.put([change("c-1", signal), change("c-2")])
        claims = await claim(queue)
        server.stop(signal)
        for call in (
            queue.put([change("c-1")]),
            claim(queue),
            queue.extend(claims, lease_seconds=1),
            queue.settle([finished(claimed) for claimed in claims]),
            queue.next_due_seconds(),
            queue.status(),
        ):
            with pytest.raises(QueueUnavailable, match="cannot be reached"):
                await call
        server.start()

        assert await queue.settle([finished(claimed) for claimed in claims]) == []
        assert (await queue.status()).pending == 0


async def test_a_crash_may_lose_the_last_quota_and_no_settlement(server: PostgresServer) -> None:
    async with await PostgresQueue.open(server.url(), timeout_seconds=5) as queue:
        await queue.put([change("c-1"), change("c-2")])
        for claimed in await claim(queue):
            await queue.take_quota(10, per_minute=600, ahead_seconds=1)
            assert await queue.settle([finished(claimed)]) == []
        server.stop("QUIT")
        server.start()

        assert (await queue.status()).pending == 0
        granted = await queue.take_quota(10, per_minute=600, ahead_seconds=1)
        assert granted.wait_seconds <= 1


async def test_only_the_quota_does_not_wait_for_the_disk(queue: PostgresQueue) -> None:
    async def take(connection: Connection) -> str:
        await operations.take_quota(connection, 1, per_minute=600, ahead_seconds=1)
        return await setting(connection)

    async def setting(connection: Connection) -> str:
        found: str = await connection.fetchval("SHOW synchronous_commit")
        return found

    transact = queue._connections.transact
    assert [await transact(take), await transact(setting)] == ["off", "on"]


async def test_a_wrong_password_is_refused_and_not_shown(server: PostgresServer) -> None:
    await administer(server.url(), "CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right secret'")
    with pytest.raises(QueueUnusable, match=r"does not let us in .*password authentication failed") as caught:
        await PostgresQueue.open(server.url(user="guarded:wrong%20secret"))
    assert "secret" not in str(caught.value)

    async with await PostgresQueue.open(server.url(user="guarded:right%20secret")) as queue:
        assert "secret" not in repr(queue)
        await administer(server.url(), "ALTER ROLE guarded PASSWORD 'another'")
        await administer(server.url(), KILL)
        with pytest.raises(QueueUnusable, match="does not let us in"):
            await queue.status()


async def test_a_call_to_a_silent_server_times_out_and_a_later_one_works(url: str) -> None:
    async with (
        Network.before(url) as (network, url_behind),
        await PostgresQueue.open(url_behind, timeout_seconds=0.5) as queue,
    ):
        await asyncio.gather(*(queue.put([change(f"c-{i}")]) for i in range(MAX_CONNECTIONS)))
        network.silence()
        with pytest.raises(QueueUnavailable, match=r"did not answer within 0\.5 seconds"):
            await claim(queue)
        network.heal()

        assert len(await claim(queue)) == MAX_CONNECTIONS


async def test_a_settlement_that_was_not_stored_is_carried_out_when_it_is_repeated(url: str, admin: Connection) -> None:
    async with await PostgresQueue.open(url) as queue:
        await queue.put([change("c-1")])
        claimed = await claim(queue)
        await admin.execute("BEGIN; LOCK metasync.history")
        settling = asyncio.create_task(queue.settle([finished(claimed[0])]))
        await is_waiting(admin, 1)
        await admin.execute(KILL)
        with pytest.raises(QueueUnavailable):
            await settling
        await admin.execute("ROLLBACK")

        assert await queue.settle([finished(claimed[0])]) == []
        assert (await queue.status()).pending == 0


async def test_a_read_only_server_is_unavailable_until_it_takes_writes(url: str, admin: Connection) -> None:
    await admin.execute(
        "ALTER DATABASE " + url.rpartition("@/")[2].partition("?")[0] + " SET default_transaction_read_only = on"
    )
    async with await PostgresQueue.open(url) as queue:
        [warning] = queue.warnings
        assert "takes no writes" in warning
        for call in (queue.put([change("c-1")]), claim(queue)):
            with pytest.raises(QueueUnavailable, match="takes no writes"):
                await call
        assert (await queue.status()).pending == 0
        await admin.execute(
            "ALTER DATABASE " + url.rpartition("@/")[2].partition("?")[0] + " RESET default_transaction_read_only"
        )
        await admin.execute(KILL)

        await queue.put([change("c-1")])


async def test_a_server_without_free_connections_is_unavailable_until_one_is_free(url: str) -> None:
    async with new_role(url, "SUPERUSER CONNECTION LIMIT 1") as (role, role_url):
        await administer(url, f"ALTER ROLE {role} NOSUPERUSER; GRANT pg_read_all_data, pg_write_all_data TO {role}")
        async with connected(role_url):
            with pytest.raises(QueueUnavailable, match=r"no connection left .*too many connections"):
                await PostgresQueue.open(role_url)
        async with connected(url) as admin:
            while await sessions(admin, f"usename = '{role}'"):  # a closed session ends when the server gets to it
                await asyncio.sleep(0.01)

        async with await PostgresQueue.open(role_url) as queue:
            assert (await queue.status()).pending == 0


@pytest.mark.parametrize(
    ("sqlstate", "kind", "words"),
    [
        ("53100", QueueUnwritable, "cannot be written: the disk is full (made up)"),
        ("53200", QueueUnavailable, "run out of something (made up)"),
        ("58030", QueueUnwritable, "cannot be written: reading or writing failed (made up)"),
        ("08P01", QueueUnavailable, "a proxy before the server turns us away (made up)"),
        ("57P03", QueueUnavailable, "the server is not there for us (made up)"),
        ("40001", QueueUnavailable, "other transactions were in the way (made up)"),
        ("XX000", QueueUnavailable, "the server is in trouble (made up)"),
        ("42501", QueueUnusable, "the role lacks a right (made up)"),
        ("42703", QueueUnusable, "its schema is not what it should be (made up)"),
    ],
)
async def test_errors_of_the_server_are_explained(
    queue: PostgresQueue, sqlstate: str, kind: type[Exception], words: str
) -> None:
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}', DETAIL = 'private'; END $$"
    with pytest.raises(kind) as caught:
        await queue._connections.transact(lambda connection: connection.execute(raising))

    assert words in str(caught.value)
    assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("unsupported startup parameter in options: x", r"refuses an option of the URL: .*parameter in options: x"),
        ("transaction blocks not allowed in statement pooling mode", "pools statements .* have it pool transactions"),
    ],
)
async def test_what_only_another_setting_of_a_proxy_mends_is_said(queue: PostgresQueue, said: str, words: str) -> None:
    raising = f"DO $$ BEGIN RAISE EXCEPTION '{said}' USING ERRCODE = '08P01'; END $$"
    with pytest.raises(QueueMisnamed, match=words):
        await queue._connections.transact(lambda connection: connection.execute(raising))


async def test_a_programming_error_is_not_explained_as_an_error_of_the_server(queue: PostgresQueue) -> None:
    with pytest.raises(asyncpg.DataError, match="expected str, got int"):
        await queue._connections.transact(lambda connection: connection.execute("SELECT $1::text", 1))

    assert (await queue.put([change("c-1")])).added == 1


async def test_a_transaction_is_repeated_after_a_deadlock(queue: PostgresQueue, admin: Connection) -> None:
    """Each holds what the other needs. The server ends the transaction that notices first, which is ours."""
    attempts = 0
    await admin.execute("SET deadlock_timeout = '60s'; BEGIN; LOCK metasync.history")
    async with asyncio.TaskGroup() as group:

        async def work(connection: Connection) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await connection.execute("LOCK metasync.note")
                crossing = group.create_task(admin.execute("LOCK metasync.note"))
                while await sessions(connection, "cardinality(pg_blocking_pids(pid)) > 0") == 0:
                    await asyncio.sleep(0.005)
                crossing.add_done_callback(lambda _: group.create_task(admin.execute("ROLLBACK")))
                await connection.execute("SET LOCAL deadlock_timeout = '1ms'")
            await connection.execute("LOCK metasync.history")
            return attempts

        assert await queue._connections.transact(work) == 2


async def test_the_server_cancels_a_statement_that_takes_too_long(url: str) -> None:
    async with await PostgresQueue.open(url, timeout_seconds=0.5) as queue:
        with pytest.raises(QueueUnavailable, match=r"the server took too long .*statement timeout"):
            await queue._connections.transact(lambda connection: connection.execute("SELECT pg_sleep(60)"))

        assert (await queue.put([change("c-1")])).added == 1


async def test_the_server_ends_a_transaction_whose_process_hangs(
    url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await PostgresQueue.open(url, timeout_seconds=0.2) as queue:
        monkeypatch.setattr(
            queue._connections, "_timeout_seconds", 60
        )  # a process that hangs does not see its time-out
        locked = False

        async def hang(connection: Connection) -> None:
            nonlocal locked
            await connection.execute("LOCK metasync.change")
            await admin.execute("SET lock_timeout = '10s'; LOCK metasync.change")
            locked = True
            await connection.execute("SELECT 1")

        with pytest.raises(QueueUnavailable, match="the connection was lost"):
            await queue._connections.transact(hang)
        assert locked


async def test_a_call_waits_for_a_free_connection_of_the_pool(url: str, admin: Connection) -> None:
    async with await PostgresQueue.open(url) as queue:
        await locked(admin)
        putting = [asyncio.create_task(queue.put([change(f"c-{i}")])) for i in range(MAX_CONNECTIONS + 3)]
        await is_waiting(admin, MAX_CONNECTIONS)
        assert await sessions(admin, OURS) == MAX_CONNECTIONS
        await admin.execute("ROLLBACK")

        assert await asyncio.gather(*putting) == [Stored(1, 0)] * (MAX_CONNECTIONS + 3)


async def test_a_cancelled_call_leaves_nothing_behind(queue: PostgresQueue, admin: Connection) -> None:
    await locked(admin)
    putting = [asyncio.create_task(queue.put([change(f"c-{i}")])) for i in range(MAX_CONNECTIONS)]
    await is_waiting(admin, MAX_CONNECTIONS)
    for task in putting:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*putting, return_exceptions=True)
    )
    assert await sessions(admin, f"{OURS} AND state = 'idle'") == MAX_CONNECTIONS
    await admin.execute("ROLLBACK")

    assert (await queue.status()).pending == 0
    await asyncio.gather(*(queue.put([change(f"c-{i}")]) for i in range(MAX_CONNECTIONS)))


async def test_a_claim_cancelled_at_any_moment_is_given_back(queue: PostgresQueue) -> None:
    await queue.put([change("c-1")])
    went = 0
    for steps in range(1_000):  # of the event loop, between the call and its caller's end
        claiming = asyncio.create_task(claim(queue))
        for _ in range(steps):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        if not claiming.cancelled():
            await queue.settle([Settlement(claimed) for claimed in claiming.result()])
            break
        went += 1
        await asyncio.gather(*queue._background)
        [claimed] = await claim(queue)
        assert await queue.settle([Settlement(claimed)]) == []
    assert 1 < went < 1_000


async def test_close_gives_back_the_claim_of_a_cancelled_caller(url: str, admin: Connection) -> None:
    async with Network.before(url) as (network, url_behind):
        queue = await PostgresQueue.open(url_behind)
        await queue.put([change("c-1", "x")])
        committing = network.silence_after(b"COMMIT\0")
        claiming = asyncio.create_task(claim(queue))
        await committing
        while not await admin.fetchval("SELECT count(lease) FROM metasync.target"):
            await asyncio.sleep(0.005)
        claiming.cancel()
        await asyncio.wait([claiming])
        closing = asyncio.create_task(queue.close())
        network.heal()
        await closing

    async with await PostgresQueue.open(url) as again:
        assert await pending_labels(again) == {"c-1": ["x"]}


async def test_close_waits_for_calls_under_way(url: str, admin: Connection) -> None:
    queue = await PostgresQueue.open(url)
    await locked(admin)
    putting = asyncio.create_task(queue.put([change("c-1")]))
    await is_waiting(admin, 1)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    await admin.execute("ROLLBACK")
    await closing

    assert (await putting).added == 1
    async with await PostgresQueue.open(url) as again:
        assert await pending_labels(again) == {"c-1": ["x"]}


async def test_a_closed_queue_raises_and_holds_no_connection(queue: PostgresQueue, admin: Connection) -> None:
    await asyncio.gather(*(queue.status() for _ in range(MAX_CONNECTIONS)))
    await queue.wait_for_work(0)
    await queue.close()
    await queue.close()

    with pytest.raises(RuntimeError, match="the queue is closed"):
        await queue.put([change("c-1")])
    while await sessions(admin, OURS):
        await asyncio.sleep(0.005)  # the server takes its time to say goodbye


async def test_claims_that_wait_for_a_missing_standby_leave_no_changes_in_memory(server: PostgresServer) -> None:
    """The calls are committed without an answer, as long as the standby is down."""

    async def configure(standbys: str) -> None:
        await administer(server.url(), f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
        await administer(server.url(), "SELECT pg_reload_conf()")

    async with await PostgresQueue.open(server.url(), timeout_seconds=0.5) as queue:

        async def go_on() -> None:
            while True:
                await queue.settle([Settlement(claimed) for claimed in await claim(queue)])

        await queue.put([change("c-1"), change("c-2")])
        await configure("nobody")
        try:
            for _ in range(3):
                with pytest.raises(QueueUnavailable):
                    await go_on()
            assert [claimed.changes for claimed in queue._unanswered_claims._claims if claimed.changes] == []
            assert queue._unanswered_claims._claims != []
        finally:
            await configure("")

        while True:
            with suppress(QueueUnavailable):
                found = await pending_labels(queue)
                break
        assert found == {"c-1": ["x"], "c-2": ["x"]}
