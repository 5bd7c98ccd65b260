"""Calls that were carried out but whose answer was lost can be repeated, on every backend."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.queue.helpers import change, claim, claim_one, finished, labels, numbers
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import connected, lent_database, sessions
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import running
from worker.queue import Death, QueueUnavailable, Settlement, Store, Stored, open_queue
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.writer import _nothing

# Makes a call, and loses its answer.
Lose = Callable[[Coroutine[Any, Any, object]], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[tuple[Store, Lose]]:
    """A file on a disk that takes longer for a commit than the caller waits."""
    async with await SqliteQueue.open(f"sqlite:///{folder}/queue.db") as queue:
        committing = threading.Event()

        def traced(_: object, sql: str, __: object) -> bool:
            if sql == "COMMIT":  # it can no longer be undone
                committing.set()
            return True

        await queue._writer.read(lambda connection: setattr(connection, "exec_trace", traced))

        async def lose(call: Coroutine[Any, Any, object]) -> None:
            committing.clear()
            calling = asyncio.ensure_future(call)
            await asyncio.sleep(0)  # it is in the thread's inbox
            assert committing.wait(60)  # this holds up the event loop: the answer is not delivered yet
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await queue._writer.read(_nothing)  # by now the answer has been dropped

        yield queue, lose


@asynccontextmanager
async def _postgres(_: Path) -> AsyncIterator[tuple[Store, Lose]]:
    """A network that swallows the answer to COMMIT, and breaks."""
    async with (
        lent_database() as url,
        Network.before(url) as (network, url_behind),
        open_queue(url_behind) as queue,
        connected(url) as admin,
    ):
        ours = "application_name = 'metasync' AND (state <> 'idle' OR query NOT LIKE 'COMMIT%')"

        async def lose(call: Coroutine[Any, Any, object]) -> None:
            committing = network.silence_after(b"COMMIT\0")
            calling = asyncio.ensure_future(call)
            await committing
            while await sessions(admin, ours):
                await asyncio.sleep(0.005)
            network.cut()
            network.heal()
            with pytest.raises(QueueUnavailable, match="the connection was lost"):
                await calling

        yield queue, lose


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[tuple[Store, Lose]]:
    """A network that swallows the answer, and breaks."""
    with running(folder) as server:
        async with Proxy(server.port) as network, open_queue(network.url()) as queue:

            async def lose(call: Coroutine[Any, Any, object]) -> None:
                with network.deaf():
                    calling = asyncio.ensure_future(call)
                    await network.heard()
                    network.cut()
                with pytest.raises(QueueUnavailable):
                    await calling

            yield queue, lose


BACKENDS: dict[str, Callable[[Path], AbstractAsyncContextManager[tuple[Store, Lose]]]] = {
    "postgres": _postgres,
    "redis": _redis,
    "sqlite": _sqlite,
}


@pytest.fixture(params=sorted(BACKENDS))
async def lossy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Lose]]:
    async with BACKENDS[request.param](tmp_path) as lossy:
        yield lossy


async def test_a_put_with_change_ids_stores_nothing_twice(lossy: tuple[Store, Lose]) -> None:
    queue, lose = lossy
    batch = [change("c-1", str(i), change_id=f"line-{i}") for i in range(3)]
    await lose(queue.put(batch))

    assert await queue.put(batch) == Stored(added=0, duplicates=3, pending_in={None: 3})
    assert labels(await claim_one(queue)) == ["0", "1", "2"]


async def test_what_was_claimed_is_given_back_by_the_next_claim(lossy: tuple[Store, Lose]) -> None:
    queue, lose = lossy
    await queue.put([change("c-1"), change("c-2")])
    await lose(claim(queue, 1))

    assert {claimed.completion_id for claimed in await claim(queue)} == {"c-1", "c-2"}
    assert await claim(queue) == []  # a claim that its caller has is not given back


async def test_a_lease_that_was_extended_holds(lossy: tuple[Store, Lose]) -> None:
    queue, lose = lossy
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    await lose(queue.extend([claimed], lease_seconds=60))

    assert await queue.extend([claimed], lease_seconds=60) == []
    assert await queue.settle([finished(claimed)]) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_settlements_that_were_stored_are_not_stale_when_they_are_said_again(
    lossy: tuple[Store, Lose], times: int
) -> None:
    queue, lose = lossy
    await queue.put([change(f"c-{i}") for i in range(4)])
    done, kept, dead, lost = await claim(queue)
    await queue.settle([Settlement(lost)])
    settlements = [
        Settlement(lost),
        finished(done),
        Settlement(kept, delay_seconds=60),
        Settlement(dead, dead=[Death(numbers(dead)[0], "rejected", 1)]),
    ]
    for _ in range(times):
        await lose(queue.settle(settlements))

    assert await queue.settle(settlements) == [Settlement(lost)]
    assert await queue.settle(settlements) == settlements  # its caller knows it now: a further settlement is stale
    status = await queue.status()
    assert (status.pending, status.dead) == (2, 1)
    assert [claimed.completion_id for claimed in await claim(queue)] == [lost.completion_id]


async def test_settlements_may_be_said_again_in_other_calls_than_the_one_that_was_lost(
    lossy: tuple[Store, Lose],
) -> None:
    queue, lose = lossy
    await queue.put([change(f"c-{i}") for i in range(4)])
    settlements = [finished(claimed) for claimed in await claim(queue)]
    await lose(queue.settle(settlements[:3]))

    assert await queue.settle(settlements[2:]) == []
    assert await queue.settle(settlements[:2]) == []
    assert (await queue.status()).pending == 0
