"""Clusters and shards: refused in one sentence, before anything is written."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command
from tests.queue.helpers import change
from tests.queue.redis_server import SLOTS, RedisServer, running
from worker.queue import QueueMisnamed, QueueUnavailable
from worker.queue.redis import RedisQueue

CLUSTER = {"cluster-enabled": "yes"}
A_CLUSTER = (
    "it is a node of a cluster, and a cluster that moves slots splits the queue and loses changes; "
    "use one server, or PostgreSQL where one is not enough"
)
NO_SHARDS = (
    "a Redis queue has no shards: moving one splits the queue and loses changes; "
    "leave ?shards= out of its URL, and use PostgreSQL where one server is not enough"
)


async def give_slots(server: RedisServer) -> None:
    """Make the node serve every possible key."""
    async with server.client() as client:
        await client.cluster("ADDSLOTSRANGE", 0, SLOTS - 1)
        while (await client.cluster("INFO"))["cluster_state"] != "ok":
            await asyncio.sleep(0.01)


async def what_is_there(server: RedisServer) -> tuple[int, list[object]]:
    async with server.client() as client:
        return await client.dbsize(), await client.function_list()


async def status(folder: Path, url: str) -> tuple[int, list[str]]:
    """Run `metasync status`; return its exit code and its output."""
    command = Command(folder, {"METASYNC_QUEUE_URL": url, "OPENAI_API_KEY": KEY})
    done = await asyncio.to_thread(command.run, "status")
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("slots", [0, SLOTS])
async def test_a_cluster_is_refused_with_the_way_out_and_left_as_it_is(tmp_path: Path, slots: int) -> None:
    with running(tmp_path, CLUSTER) as server:
        if slots:
            await give_slots(server)

        code, sentences = await status(tmp_path, server.url())

        assert (code, sentences) == (
            2,
            [f"metasync: redis://127.0.0.1:{server.port}/0 cannot be the queue: {A_CLUSTER}"],
        )
        assert await what_is_there(server) == (0, [])


async def test_a_cluster_is_refused_for_any_user(tmp_path: Path) -> None:
    with running(tmp_path, CLUSTER) as server:
        await give_slots(server)
        async with server.client() as client:
            await client.acl_setuser("worker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+fcall"])

        with pytest.raises(QueueMisnamed, match="it is a node of a cluster"):
            await RedisQueue.open(server.url(user="worker:secret@"))
        assert await what_is_there(server) == (0, [])


async def test_another_database_of_a_cluster_is_refused_likewise(tmp_path: Path) -> None:
    with running(tmp_path, CLUSTER) as server, pytest.raises(QueueMisnamed, match="it is a node of a cluster"):
        await RedisQueue.open(server.url().replace("/0", "/1"))


async def test_a_server_that_has_become_a_cluster_is_refused_by_the_next_call(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue:
            server.kill()
            server.start(CLUSTER)
            with pytest.raises(QueueUnavailable, match="it cannot be reached"):
                await queue.status()

            with pytest.raises(QueueMisnamed, match="it is a node of a cluster"):
                await queue.put([change("c-1")])


async def test_shards_are_refused_with_the_way_out_and_the_server_is_left_as_it_is(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        code, sentences = await status(tmp_path, server.url(shards=4))

        assert (code, sentences) == (2, [f"metasync: {NO_SHARDS}"])
        assert await what_is_there(server) == (0, [])
