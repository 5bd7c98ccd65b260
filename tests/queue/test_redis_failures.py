"""A server that is down, busy, full, demoted or emptied: clear messages, and recovery."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.e2e.processes import KEY, Command, write_changes
from tests.ports import PORTS
from tests.queue.helpers import change, changes, claim, claim_one, finished, labels, pending_labels
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import DURABLE, NOTHING, RedisServer, running, until
from worker.changes import MetadataChange
from worker.queue import PendingSelection, QueueError, QueueUnavailable, QueueUnwritable, Settlement, Withdrawn
from worker.queue.redis import RedisQueue, migration_sql

BULKY = [MetadataChange(f"c-{i}", {"label": "x" * 500}) for i in range(4_000)]


@asynccontextmanager
async def server_and_queue(
    folder: Path, options: Mapping[str, str] = NOTHING, *, timeout_seconds: float = 10.0
) -> AsyncIterator[tuple[RedisServer, RedisQueue]]:
    with running(folder, options) as server:
        async with await RedisQueue.open(server.url(), timeout_seconds=timeout_seconds) as queue:
            yield server, queue


@asynccontextmanager
async def server_queue_and_client(
    folder: Path, options: Mapping[str, str] = NOTHING
) -> AsyncIterator[tuple[RedisServer, RedisQueue, Redis]]:
    async with server_and_queue(folder, options) as (server, queue), server.client() as client:
        yield server, queue, client


async def test_a_library_that_was_lost_is_loaded_again(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        await queue.put(changes("c-1", "ab"))
        await client.function_flush()

        assert labels(await claim_one(queue)) == ["a", "b"]


async def test_a_server_that_lost_everything_is_used_afresh(tmp_path: Path) -> None:
    async with server_and_queue(tmp_path) as (server, queue):
        await queue.put([change("c-1", "lost")])
        claimed = await claim_one(queue)
        server.kill()
        with pytest.raises(QueueUnavailable):
            await queue.status()
        server.start()

        assert await queue.settle([finished(claimed)]) == [finished(claimed)]
        await queue.put([change("c-1", "new")])
        assert await pending_labels(queue) == {"c-1": ["new"]}


async def test_a_server_that_was_restarted_is_found_again_by_the_next_call(tmp_path: Path) -> None:
    async with server_and_queue(tmp_path, DURABLE) as (server, queue):
        await queue.put([change("c-1")])
        server.kill()
        with pytest.raises(
            QueueUnavailable, match=r"the queue at redis://127.* cannot be used now: it cannot be reached"
        ):
            await queue.put([change("c-2")])
        server.start()

        assert await pending_labels(queue) == {"c-1": ["x"]}


async def test_a_server_that_was_never_there_is_unavailable() -> None:
    with pytest.raises(QueueUnavailable, match="it cannot be reached"):
        await RedisQueue.open(f"redis://127.0.0.1:{PORTS[0] - 1}/0")


async def test_a_server_without_memory_stores_nothing_by_halves_and_is_emptied_all_the_same(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        await queue.put([change(f"c-{i}") for i in range(50)])
        await client.config_set("maxmemory", "1")

        with pytest.raises(QueueUnavailable, match=r"its memory is used up \(maxmemory\)"):
            await queue.put(BULKY)
        assert (await queue.status()).pending == 50
        claims = await claim(queue)
        assert len(claims) == 50
        assert await queue.extend(claims, lease_seconds=60) == []
        assert await queue.settle([finished(claimed) for claimed in claims]) == []
        assert (await queue.status()).pending == 0

        await client.config_set("maxmemory", "0")
        assert (await queue.put(BULKY)).added == len(BULKY)


async def test_a_server_without_memory_is_emptied_by_withdrawals_and_remembers_what_is_done(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        given = [MetadataChange(f"c-{i}", {"label": "x"}, change_id=str(i), as_of=1.0) for i in range(60)]
        await queue.put(given, batch="b", urgent=True)
        await queue.put(changes("c-1", range(700)))
        await queue.put(changes("c-1", range(2)), batch="b")
        await client.config_set("maxmemory", "1")

        claims = await queue.claim(20, lease_seconds=60, owner="worker", place="urgent")
        assert (
            await queue.settle([finished(each) for each in claims if each.completion_id != "c-1"], remember=True) == []
        )
        assert await queue.settle([Settlement(each) for each in claims if each.completion_id == "c-1"]) == []
        assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(43, 0)
        assert await queue.withdraw(PendingSelection(completion_id="c-1")) == Withdrawn(700, 0)
        assert await queue.forget(60.0, most=10) == 0
        assert (await queue.status()).pending == 0

        await client.config_set("maxmemory", "0")
        assert (await queue.put(given)).duplicates == 19


async def test_a_server_without_memory_is_opened_to_be_emptied(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (server, queue, client):
        await queue.put(changes("c-1", "ab"))
        await client.config_set("maxmemory", "1")

        async with await RedisQueue.open(server.url()) as other:
            claimed = await claim_one(other)
            assert labels(claimed) == ["a", "b"]
            assert await other.settle([finished(claimed)]) == []
            assert (await other.status()).pending == 0


async def test_a_server_without_memory_and_without_our_functions_is_unavailable_until_it_has_room(
    tmp_path: Path,
) -> None:
    async with server_queue_and_client(tmp_path) as (server, queue, client):
        await queue.put([change("c-1")])
        await client.function_flush()
        await client.config_set("maxmemory", "1")
        with pytest.raises(QueueUnavailable, match=r"\(maxmemory\), and the queue's functions are not loaded"):
            await RedisQueue.open(server.url())
        await client.config_set("maxmemory", "0")

        async with await RedisQueue.open(server.url()) as other:
            assert await pending_labels(other) == {"c-1": ["x"]}


async def test_commands_on_a_server_without_memory_end_with_75_and_one_sentence(tmp_path: Path) -> None:
    file = write_changes(tmp_path / "changes.jsonl", [{"completion_id": "c-1", "metadata": {"label": "x"}}])
    async with server_queue_and_client(tmp_path) as (server, _, client):
        command = Command(tmp_path, {"METASYNC_QUEUE_URL": server.url(), "OPENAI_API_KEY": KEY})
        await client.config_set("maxmemory", "1")
        refused = await asyncio.to_thread(command.run, "enqueue", file)
        await client.function_flush()
        for done in (refused, await asyncio.to_thread(command.run, "run", "--drain")):
            assert done.returncode == 75, done.stderr
            [*_, sentence] = done.stderr.splitlines()
            assert sentence.startswith(f"metasync: the queue at redis://127.0.0.1:{server.port}/0 cannot be used now: ")
            assert "its memory is used up (maxmemory)" in sentence
            assert "Traceback" not in done.stderr


async def test_memory_that_runs_out_during_a_put_stores_all_of_it_or_nothing(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", str(used + 2_000_000))
        stored = 0

        async def put_for_ever() -> None:
            nonlocal stored
            while True:
                stored += (await queue.put(BULKY)).added

        with pytest.raises(QueueUnavailable, match="memory"):
            await put_for_ever()
        await client.config_set("maxmemory", "0")

        assert stored % len(BULKY) == 0
        assert (await queue.status()).pending == stored


async def test_a_replica_is_unavailable_and_is_let_go_of_once_it_is_promoted(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        await queue.put([change("c-1")])
        await client.replicaof("127.0.0.1", str(PORTS[0] - 1))
        with pytest.raises(QueueUnavailable, match="it is a replica, which cannot be written to"):
            await queue.put([change("c-2")])
        await client.config_set("replica-serve-stale-data", "no")
        with pytest.raises(QueueUnavailable, match="it is a replica that has lost its primary"):
            await queue.status()
        await client.replicaof("NO", "ONE")

        assert await pending_labels(queue) == {"c-1": ["x"]}


async def test_after_a_failover_the_next_call_goes_to_the_new_primary(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with running(tmp_path / "old") as old, running(tmp_path / "new") as new:
        async with Proxy(old.port) as address, await RedisQueue.open(address.url()) as queue, old.client() as client:
            await queue.put([change("c-1", "old")])
            await client.replicaof("127.0.0.1", str(new.port))
            address.port = new.port
            with pytest.raises(QueueUnavailable, match="failover"):
                await queue.put([change("c-1", "refused")])

            await queue.put([change("c-1", "new")])
            async with await RedisQueue.open(new.url()) as there:
                assert await pending_labels(there) == {"c-1": ["new"]}


async def test_too_few_replicas_make_the_queue_unavailable(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        await client.config_set("min-replicas-to-write", "1")

        with pytest.raises(QueueUnavailable, match="fewer replicas"):
            await queue.put([change("c-1")])


async def test_a_disk_that_cannot_be_written_makes_the_queue_unavailable(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path, {"enable-protected-configs": "yes"}) as (_, queue, client):
        (tmp_path / "taken").mkdir()
        await client.config_set("dbfilename", "taken")
        await client.config_set("save", "3600 1")
        await client.bgsave()

        async def has_failed() -> bool:
            return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")

        await until(has_failed)
        with pytest.raises(QueueUnwritable, match="it cannot write to its disk"):
            await queue.put([change("c-1")])
        await client.config_set("save", "")

        assert (await queue.put([change("c-1")])).added == 1


async def test_a_server_that_loads_its_data_is_unavailable_until_it_has(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path, {"rdbcompression": "no"}) as (server, queue, client):
        await queue.put(BULKY[:200])
        await client.save()
        server.kill()
        # A fifth of a second for each key; others are heard after every two or three keys.
        loading = {"key-load-delay": "200000", "loading-process-events-interval-bytes": "1024"}
        server.start(loading, until="Server initialized")

        with pytest.raises(QueueUnavailable, match="it is still loading its data"):
            await RedisQueue.open(server.url())
        await client.config_set("key-load-delay", "0")

        async def is_loaded() -> bool:
            return not (await client.info("persistence"))["loading"]

        await until(is_loaded)
        assert (await queue.status()).pending == 200


async def test_a_script_that_holds_up_the_server_makes_the_queue_unavailable(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path, {"busy-reply-threshold": "1"}) as (server, queue, client):
        endless = asyncio.ensure_future(client.eval("while true do end", 0))

        async def is_held_up() -> bool:
            try:
                await queue.status()
            except QueueUnavailable as error:
                return "a script has kept it busy for too long" in str(error)
            return False

        await until(is_held_up)
        async with server.client() as other:
            await other.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            await endless

        assert (await queue.put([change("c-1")])).added == 1


async def test_a_server_that_hangs_is_unavailable_and_usable_once_it_goes_on(tmp_path: Path) -> None:
    async with server_and_queue(tmp_path, timeout_seconds=0.3) as (server, queue):
        await queue.put([change("c-1")])
        server.freeze()
        for call in (queue.status(), queue.next_due_seconds()):
            with pytest.raises(QueueUnavailable, match=r"did not answer within 0\.3 seconds"):
                await call
        server.thaw()

        assert (await queue.status()).pending == 1


async def test_a_server_that_hangs_does_not_hold_up_closing(tmp_path: Path) -> None:
    async with server_and_queue(tmp_path, timeout_seconds=1.0) as (server, queue):
        server.freeze()
        await queue.close()
        server.thaw()

        with pytest.raises(RuntimeError, match="the queue is closed"):
            await queue.put([change("c-1")])
        assert repr(queue) == f"<RedisQueue redis://127.0.0.1:{server.port}/0 [closed]>"


async def test_a_network_that_swallows_everything_is_got_over(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port) as network, await RedisQueue.open(network.url(), timeout_seconds=0.3) as queue:
            await queue.put([change("c-1")])
            with network.silent(), pytest.raises(QueueUnavailable, match="did not answer"):
                await queue.status()

            assert (await queue.status()).pending == 1


async def test_calls_beyond_the_connections_wait_for_their_turn(tmp_path: Path) -> None:
    async with server_queue_and_client(tmp_path) as (_, queue, client):
        await asyncio.gather(*(queue.put([change("c-1", str(i))]) for i in range(300)))

        assert (await queue.status()).pending == 300
        assert (await client.info("stats"))["total_connections_received"] < 30


async def test_a_library_that_another_user_loaded_is_used(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with server.client() as client:
            await client.function_load(migration_sql())
            async with await RedisQueue.open(server.url()) as queue:
                await queue.put([change("c-1")])
            loads = (await client.info("commandstats"))["cmdstat_function|load"]["calls"]

        assert loads == 1


async def test_a_put_that_no_server_would_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.queue.redis.queue._MAX_PUT_BYTES", 1_000_000)
    async with server_and_queue(tmp_path) as (_, queue):
        with pytest.raises(QueueError, match="put fewer changes in one call"):
            await queue.put(BULKY)

        assert (await queue.status()).pending == 0
