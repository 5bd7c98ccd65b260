"""Notifications of new work, lost and restored listeners, and proxies without notifications."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Literal

import asyncpg
import pytest

from tests.queue.helpers import bury, change, changes, claim, finished, labels, letters, pending_labels
from tests.queue.postgres_proxies import Network, Pooler
from tests.queue.postgres_server import PostgresServer, connected, sessions
from worker.queue import DeadSelection, QueueMisnamed, Settlement, Stored
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.connections import Connection, Connections
from worker.queue.postgres.listener import Listener

FOR_EVER = 3_600.0
LONGEST_SECONDS = 60.0  # what a test waits for something that comes at once, on a machine that is busy
LISTENING = "application_name = 'metasync' AND query ILIKE ANY (ARRAY['LISTEN%', '%pg_snapshot_xip%'])"


@pytest.fixture
async def other(url: str) -> AsyncIterator[PostgresQueue]:
    async with await PostgresQueue.open(url) as other:
        yield other


async def requests(admin: Connection) -> int:
    """How many requests to notify the server has."""
    count: int = await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    return count


async def wait_in_vain_so_far(queue: PostgresQueue) -> asyncio.Task[bool]:
    """Wait for work, with no earlier event left."""
    queue._listener.start()
    queue._listener.ask()
    await queue._listener.asks.wait()
    queue._work.clear()
    waiting = asyncio.create_task(queue.wait_for_work(FOR_EVER))
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_a_put_of_another_process_wakes_a_waiting_worker(queue: PostgresQueue, other: PostgresQueue) -> None:
    waiting = await wait_in_vain_so_far(queue)
    await other.put([change("c-1")])
    await waiting


async def test_a_producers_change_wakes_a_waiting_worker_at_the_commit(queue: PostgresQueue, admin: Connection) -> None:
    waiting = await wait_in_vain_so_far(queue)
    async with admin.transaction():
        await admin.execute("SELECT metasync_enqueue('c-1', '{}')")
        assert not waiting.done()
    await waiting


async def test_letters_that_another_process_retries_wake_a_waiting_worker(
    queue: PostgresQueue, other: PostgresQueue
) -> None:
    await bury(other, change("c-1"))
    waiting = await wait_in_vain_so_far(queue)
    await other.retry_dead(DeadSelection())
    await waiting


async def test_a_large_put_is_one_notification(queue: PostgresQueue, admin: Connection) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await admin.add_listener("metasync", lambda *said: heard.put_nowait(str(said[-1])))
    await wait_in_vain_so_far(queue)
    await queue.put([change(f"c-{i}") for i in range(6_000)])
    await admin.execute("NOTIFY metasync, 'the last'")

    assert await heard.get() == ""
    assert await heard.get() == "the last"


async def test_no_notification_is_sent_while_no_worker_waits(
    queue: PostgresQueue, other: PostgresQueue, admin: Connection
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await admin.add_listener("metasync", lambda *said: heard.put_nowait(str(said[-1])))
    await other.put([change("c-1")])
    await (await waiting_woken_by(queue, other.put([change("c-2")])))
    while queue._listener.asks.is_set():
        await asyncio.sleep(0.005)
    await other.put([change("c-3")])
    await admin.execute("NOTIFY metasync, 'the last'")

    assert [await heard.get(), await heard.get()] == ["", "the last"]


async def waiting_woken_by(queue: PostgresQueue, event: Awaitable[object]) -> asyncio.Task[bool]:
    waiting = await wait_in_vain_so_far(queue)
    await event
    return waiting


async def test_changes_from_before_the_wait_are_found(queue: PostgresQueue, other: PostgresQueue) -> None:
    await (await waiting_woken_by(queue, other.put([change("c-1")])))
    while queue._listener.asks.is_set():
        await asyncio.sleep(0.005)
    await other.put([change("c-2")])
    queue._work.clear()

    await queue.wait_for_work(FOR_EVER)


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_producer_that_began_before_the_wait_wakes_the_worker_at_its_commit(
    queue: PostgresQueue, admin: Connection, isolation: Literal["read_committed", "repeatable_read", "serializable"]
) -> None:
    async with admin.transaction(isolation=isolation):
        await admin.execute("SELECT metasync_enqueue('c-1', '{}')")
        waiting = await wait_in_vain_so_far(queue)
    await waiting


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_producer_in_an_old_snapshot_sees_that_a_worker_waits(
    queue: PostgresQueue, admin: Connection, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    async with admin.transaction(isolation=isolation):
        await admin.execute("SELECT FROM metasync.change")
        waiting = await wait_in_vain_so_far(queue)
        await admin.execute("SELECT metasync_enqueue('c-1', '{}')")
    await waiting


async def test_a_lost_listener_reconnects_and_looks_for_missed_changes(
    queue: PostgresQueue, other: PostgresQueue, admin: Connection
) -> None:
    waiting = await wait_in_vain_so_far(queue)
    await admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LISTENING}")  # noqa: S608 -- our own words
    await waiting  # changes from the time without a listener are found
    waiting = await wait_in_vain_so_far(queue)
    await other.put([change("c-1")])
    await waiting


async def test_a_listener_that_was_cut_off_silently_notices_it(url: str, other: PostgresQueue) -> None:
    async with (
        Network.before(url) as (network, url_behind),
        await PostgresQueue.open(url_behind, timeout_seconds=0.3) as queue,
    ):
        queue._listener = Listener(queue._connections, queue._work, probe_seconds=0.05)
        waiting = await wait_in_vain_so_far(queue)
        network.silence()
        while queue._listener.asks.is_set():
            await asyncio.sleep(0.01)
        await other.put([change("c-1")])
        assert not waiting.done()
        network.heal()
        await waiting


async def test_a_queue_listens_only_while_it_waits_for_work(queue: PostgresQueue, admin: Connection) -> None:
    await queue.put([change("c-1")])
    await claim(queue)

    assert await sessions(admin, LISTENING) == 0


async def test_with_listening_off_waiting_ends_with_its_time_out_or_own_work(url: str, admin: Connection) -> None:
    async with await PostgresQueue.open(f"{url}&listen=off") as queue:
        await queue.wait_for_work(0.01)
        assert await sessions(admin, LISTENING) == 0
        await asyncio.gather(queue.wait_for_work(FOR_EVER), queue.put([change("c-1")]))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer.running() as server:
        yield server


async def test_the_queue_works_through_a_proxy_that_pools_transactions(server: PostgresServer) -> None:
    async with Pooler.before(server.url()) as (pooler, url):
        async with await PostgresQueue.open(f"{url}&listen=off") as queue:
            for i in range(10):  # each transaction meets another connection
                await queue.put([change("c-1", f"a-{i}"), change(f"c-{i}", f"b-{i}", change_id=f"line-{i}")])
            assert await queue.put([change("c-1", "b-1", change_id="line-1")]) == Stored(0, 1, pending_in={None: 1})
            claims = await claim(queue)
            assert len(claims) == 10
            assert await queue.extend(claims, lease_seconds=60) == []
            first, *rest = claims
            assert await queue.settle([Settlement(first), *(finished(claimed) for claimed in rest)]) == []
            await bury(queue, *changes("c-dead", range(3)))
            assert [letter.metadata for letter in await letters(queue)][-3:] == [f'{{"label":"{i}"}}' for i in range(3)]
            await queue.retry_dead(DeadSelection(completion_id="c-dead"))
            assert await pending_labels(queue) == {"c-dead": ["0", "1", "2"]}
            await queue.write_note("name", "text")
            assert (await queue.read_notes())["name"].text == "text"
            assert (await queue.status()).in_flight == 3
            assert len(labels(first)) > 1
        assert pooler.transactions > 20


@pytest.mark.parametrize("newest", [False, True], ids=["each connection in turn", "the newest connection"])
async def test_a_proxy_that_pools_transactions_is_noticed(*, newest: bool, server: PostgresServer) -> None:
    async with (
        connected(server.url()) as admin,
        Pooler.before(server.url(), newest=newest) as (_, url),
        await PostgresQueue.open(url) as queue,
        await PostgresQueue.open(url) as other,
    ):
        assert [warning.partition(" stands")[0] for warning in queue.warnings] == ["a proxy that pools transactions"]
        await queue.wait_for_work(0.2)
        await other.put([change(f"c-{newest}")])
        for _ in range(4):
            await queue.status()
        assert (await pending_labels(queue))[f"c-{newest}"] == ["x"]
        assert await requests(admin) == 0


async def test_a_queue_without_a_proxy_opens_one_connection_and_listens(server: PostgresServer) -> None:
    async with Network.before(server.url()) as (network, url), await PostgresQueue.open(url) as queue:
        assert queue.warnings == ()
        assert network.connections == 1
        (await wait_in_vain_so_far(queue)).cancel()


async def test_a_proxy_without_a_free_connection_for_the_discovery_serves_with_the_one_it_gave(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Connections._connect

    async def full(self: Connections, *, prepares: bool) -> Connection:
        if not prepares:
            raise asyncpg.TooManyConnectionsError("made up")
        return await connect(self, prepares=prepares)

    monkeypatch.setattr(Connections, "_connect", full)
    async with Pooler.before(server.url(), newest=True) as (_, url), await PostgresQueue.open(url) as queue:
        assert queue.warnings == ()
        await queue.status()


async def test_a_proxy_that_comes_later_is_not_listened_to(server: PostgresServer) -> None:
    async with (
        connected(server.url()) as admin,
        Network.before(server.url()) as (network, url),
        Pooler.before(server.url(), newest=True) as (_, url_of_proxy),
        await PostgresQueue.open(url) as queue,
    ):
        network.lead_to(url_of_proxy)
        listener = Listener(queue._connections, queue._work)
        async with asyncio.timeout(LONGEST_SECONDS), listener._connection() as connection:
            listener.ask()
            await listener._listen(connection)
        assert await requests(admin) == 0


async def test_a_proxy_that_comes_later_is_named_where_statements_are_missing(server: PostgresServer) -> None:
    async with (
        Network.before(server.url()) as (network, url),
        Pooler.before(server.url()) as (_, url_of_proxy),
        await PostgresQueue.open(url) as queue,
    ):
        network.lead_to(url_of_proxy)
        network.cut()
        with pytest.raises(QueueMisnamed, match=r"proxy that pools transactions .* add listen=off"):  # noqa: PT012 -- whichever call meets it first
            for _ in range(4):
                await queue.status()
