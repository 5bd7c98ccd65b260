"""A store that has lost its last moments, by failover or restore, gives new lease numbers."""

import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.queue.helpers import change, changes, claim_one, finished, labels
from tests.queue.postgres_server import PostgresServer
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import DURABLE, running, until
from worker.queue import Claim, Settlement, Store, open_queue

# A store that loses all that is written from now on, and the step that makes it lose it.
Step = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _a_replica_that_lags(folder: Path) -> AsyncIterator[tuple[str, Step, Step]]:
    """Use a fixed address; cut off its replica; and promote that."""
    for name in ("primary", "replica"):
        (folder / name).mkdir()
    at_once = {**DURABLE, "repl-diskless-sync-delay": "0"}
    with running(folder / "primary", at_once) as primary, running(folder / "replica", at_once) as replica:
        async with Proxy(primary.port) as address, replica.client() as client:
            await client.replicaof("127.0.0.1", str(primary.port))

            async def fall_behind() -> None:
                async with primary.client() as there:
                    sent = (await there.info("replication"))["master_repl_offset"]

                async def has_heard() -> bool:
                    return bool((await client.info("replication"))["slave_repl_offset"] >= sent)

                await until(has_heard)
                await client.replicaof("NO", "ONE")

            async def take_over() -> None:
                primary.kill()
                address.port = replica.port

            async def is_in_touch() -> bool:
                return bool((await client.info("replication"))["master_link_status"] == "up")

            await until(is_in_touch)
            yield address.url(), fall_behind, take_over


@asynccontextmanager
async def _data_that_is_put_back(folder: Path) -> AsyncIterator[tuple[str, Step, Step]]:
    """Start a server; copy its data; and start it from the copy."""
    data, copy = folder / "data", folder / "copy"
    data.mkdir()
    with running(data, DURABLE) as server:

        async def back_up() -> None:
            shutil.copytree(data, copy)

        async def put_back() -> None:
            server.kill()
            shutil.rmtree(data)
            shutil.move(copy, data)
            server.start()

        yield server.url(), back_up, put_back


@asynccontextmanager
async def _a_file_that_is_put_back(folder: Path) -> AsyncIterator[tuple[str, Step, Step]]:
    """Use a file; copy it; and put the copy in its place."""
    path, copy = folder / "queue.db", folder / "copy.db"

    async def back_up() -> None:
        connection = apsw.Connection(str(path))
        connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()

    async def put_back() -> None:
        shutil.move(copy, path)

    yield f"sqlite:///{path}", back_up, put_back


@asynccontextmanager
async def _a_base_backup(_: Path) -> AsyncIterator[tuple[str, Step, Step]]:
    """Use a database; copy its server's data; and start it from the copy."""
    with PostgresServer.running() as server:
        copy = server.data.with_name("copy")

        async def back_up() -> None:
            server.stop()
            server.copy_data(copy)
            server.start()

        async def put_back() -> None:
            server.stop("QUIT")
            shutil.rmtree(server.data)
            copy.rename(server.data)
            server.start()

        yield server.url(), back_up, put_back


FAILOVERS: list[Callable[[Path], AbstractAsyncContextManager[tuple[str, Step, Step]]]] = [
    _a_base_backup,
    _a_file_that_is_put_back,
    _a_replica_that_lags,
    _data_that_is_put_back,
]


@pytest.fixture(params=FAILOVERS)
async def stale(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Claim, Claim]]:
    """A queue after a failover that lost a claim; that claim; and the next one of the same completion.

    The lost claim was of a change that survives. The next claim has a second change, which came after the failover.
    """
    async with request.param(tmp_path) as (url, loses, has_lost):
        async with open_queue(url) as queue:
            await queue.put(changes("c-0", "x"))
            await queue.settle([finished(await claim_one(queue))])
            await queue.put([change("c-1", "before")])
            await loses()
            lost = await claim_one(queue)
        await has_lost()
        async with open_queue(url) as queue:
            await queue.put([change("c-1", "after")])
            held = await claim_one(queue)
            assert labels(held) == ["before", "after"]
            yield queue, lost, held


async def test_a_lease_number_that_was_lost_is_not_given_out_again(stale: tuple[Store, Claim, Claim]) -> None:
    _, lost, held = stale

    assert held.lease > lost.lease


async def test_a_settlement_of_a_lost_lease_is_stale_and_takes_nothing(stale: tuple[Store, Claim, Claim]) -> None:
    queue, lost, held = stale

    assert await queue.extend([lost], lease_seconds=60) == [lost]
    assert await queue.settle([finished(lost)]) == [finished(lost)]
    assert await queue.settle([Settlement(held, applied=[held.changes[0].number])]) == []
    assert labels(await claim_one(queue)) == ["after"]
