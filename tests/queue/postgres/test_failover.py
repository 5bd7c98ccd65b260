"""One name, two servers: the old primary becomes read-only, and the standby accepts writes."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.queue.helpers import change, claim, claim_one, died, finished, pending_labels
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import PostgresServer, administer, connected
from worker.queue import QueueUnavailable
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.connections import MAX_CONNECTIONS

LISTENS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'metasync' AND query LIKE '%pg_snapshot_xip%'"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary with an empty queue, and its standby."""
    with PostgresServer.running() as primary:

        async def migrate() -> None:
            async with await PostgresQueue.open(primary.url()):
                pass

        asyncio.run(migrate())
        with primary.standby() as standby:
            yield primary, standby


async def test_a_listener_on_a_standby_comes_back_later_and_later(
    servers: tuple[PostgresServer, PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    slept = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            slept.set()
            await asyncio.Event().wait()

    primary, standby = servers
    async with Network.before(primary.url()) as (network, url), await PostgresQueue.open(url) as queue:
        network.lead_to(standby.url())
        monkeypatch.setattr("worker.queue.postgres.listener.asyncio.sleep", sleep)
        queue._listener.start()
        await slept.wait()
        monkeypatch.undo()

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]


async def test_after_a_failover_no_connection_to_the_former_primary_is_used_again(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    primary, standby = servers
    async with Network.before(primary.url()) as (network, url), await PostgresQueue.open(url) as queue:
        queue._listener.start()
        await asyncio.gather(*(queue.status() for _ in range(MAX_CONNECTIONS)))
        async with connected(primary.url()) as admin:
            while not await admin.fetchval(LISTENS):
                await asyncio.sleep(0.01)
        await administer(primary.url(), "ALTER SYSTEM SET default_transaction_read_only = on")
        await administer(primary.url(), "SELECT pg_reload_conf()")
        await administer(standby.url(), "SELECT pg_promote()")
        network.lead_to(standby.url())
        before = network.connections

        with pytest.raises(QueueUnavailable, match="takes no writes"):
            await queue.claim(1, lease_seconds=60, owner="worker")
        await asyncio.gather(*(queue.put([change(f"c-{number}", "x")]) for number in range(MAX_CONNECTIONS)))

        assert len(await pending_labels(queue)) == MAX_CONNECTIONS
        assert network.connections > before
        queue._listener.ask()
        async with connected(standby.url()) as admin:
            while not await admin.fetchval(LISTENS):
                await asyncio.sleep(0.01)


async def test_settlements_whose_answer_was_lost_with_the_last_transactions_are_stale_on_the_successor() -> None:
    """The new server has not given this number to a transaction yet."""
    with PostgresServer.running() as server:
        async with Network.before(server.url()) as (network, url), await PostgresQueue.open(url) as queue:
            await queue.put([change("c-1")])
            server.stop()
            copy = server.data.with_name("copy")
            server.copy_data(copy)
            server.start()
            lost = await claim_one(queue)
            committing = network.silence_after(b"COMMIT\0")
            settling = asyncio.ensure_future(queue.settle([finished(lost)]))
            await committing
            async with connected(server.url()) as admin:
                while await admin.fetchval("SELECT count(*) FROM metasync.change"):
                    await asyncio.sleep(0.005)
            server.stop("QUIT")
            shutil.rmtree(server.data)
            copy.rename(server.data)
            server.start()
            network.cut()
            network.heal()
            with pytest.raises(QueueUnavailable):
                await settling

            assert await queue.settle([finished(lost)]) == [finished(lost)]
            assert (await claim_one(queue)).lease > lost.lease


async def test_an_unknown_error_of_the_server_is_waited_for(url: str) -> None:
    """A sequence that was set back gives numbers out again."""
    async with await PostgresQueue.open(url) as queue:
        await queue.put([change("c-1"), change("c-2")])
        first, second = await claim(queue)
        await queue.settle([died(first)])
        sequence = "metasync.dead_letter_number_seq"
        await administer(url, f"ALTER SEQUENCE {sequence} RESTART")
        with pytest.raises(QueueUnavailable, match=r"SQLSTATE 23505: duplicate key .*dead_letter_pkey"):
            await queue.settle([died(second)])
        await administer(url, f"SELECT setval('{sequence}', 100)")

        assert await queue.settle([died(second)]) == []


@pytest.mark.parametrize("operation", ["claim", "settle", "extend"])
async def test_after_any_error_the_next_call_may_work(url: str, operation: str) -> None:
    async with await PostgresQueue.open(url) as queue:
        await queue.put([change("c-1"), change("c-2")])
        [held] = await queue.claim(1, lease_seconds=60, owner="worker")
        await administer(
            url,
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'object_not_in_prerequisite_state'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON metasync.target EXECUTE FUNCTION refuse()
            """,
        )
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "claim": lambda: queue.claim(1, lease_seconds=60, owner="worker"),
            "settle": lambda: queue.settle([finished(held)]),
            "extend": lambda: queue.extend([held], lease_seconds=60),
        }
        with pytest.raises(QueueUnavailable, match="SQLSTATE 55000: not now"):
            await calls[operation]()
        await administer(url, "DROP TRIGGER refuse ON metasync.target")

        await calls[operation]()
        assert await queue.settle([finished(held)]) == ([] if operation != "settle" else [finished(held)])


async def test_a_locked_target_stays_due_and_is_claimed_once_released(url: str) -> None:
    async with await PostgresQueue.open(url) as queue, connected(url) as admin:
        await queue.put([change("c-1")])
        async with admin.transaction():
            await admin.execute("SELECT FROM metasync.target FOR UPDATE")
            assert await claim(queue) == []
            due_seconds = await queue.next_due_seconds()
            assert due_seconds is not None
            assert due_seconds <= 0

        assert (await claim_one(queue)).completion_id == "c-1"
