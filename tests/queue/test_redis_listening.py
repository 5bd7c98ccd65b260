"""A worker that waits on Redis notices other processes' changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.queue.helpers import bury, change
from tests.queue.redis_server import a_place, running
from tests.queue.test_redis_access import allow
from tests.virtual import in_virtual_time
from worker.queue import DeadSelection, QueueUnavailable
from worker.queue.redis import RedisQueue
from worker.queue.redis.listener import Listener

FOR_EVER = 3_600.0
LONGEST_SECONDS = 60.0  # what the test waits for something that comes at once, on a machine that is busy


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with a_place() as place:
        yield place.url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[RedisQueue]:
    async with await RedisQueue.open(url) as queue:
        yield queue


@pytest.fixture
async def other(url: str) -> AsyncIterator[RedisQueue]:
    async with await RedisQueue.open(url) as other:
        yield other


async def wait_in_vain_so_far(queue: RedisQueue) -> asyncio.Task[bool]:
    """Wait for work, with no earlier event left."""
    while await queue.wait_for_work(0.2):
        pass
    waiting = asyncio.create_task(queue.wait_for_work(FOR_EVER))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    return waiting


async def heard(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(LONGEST_SECONDS):
        return await waiting


async def test_each_of_many_puts_wakes_a_waiting_worker(queue: RedisQueue, other: RedisQueue) -> None:
    for number in range(20):
        waiting = await wait_in_vain_so_far(queue)
        await other.put([change(f"c-{number}")])
        assert await heard(waiting)


async def test_what_is_put_between_two_waits_is_heard(queue: RedisQueue, other: RedisQueue) -> None:
    (await wait_in_vain_so_far(queue)).cancel()
    await other.put([change("c-1")])
    assert await heard(asyncio.create_task(queue.wait_for_work(FOR_EVER)))


async def test_letters_that_another_process_retries_wake_a_waiting_worker(queue: RedisQueue, other: RedisQueue) -> None:
    await bury(queue, change("c-1"))
    waiting = await wait_in_vain_so_far(queue)
    assert (await other.retry_dead(DeadSelection())).retried == 1
    assert await heard(waiting)


async def test_a_duplicate_wakes_no_worker(queue: RedisQueue, other: RedisQueue) -> None:
    await other.put([change("c-1", change_id="line-1")])
    waiting = await wait_in_vain_so_far(queue)
    await other.put([change("c-1", change_id="line-1")])
    await other.status()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()


async def test_a_user_with_the_documented_rights_hears(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        url = await allow(server)
        async with await RedisQueue.open(url) as queue, await RedisQueue.open(url) as other:
            waiting = await wait_in_vain_so_far(queue)
            await other.put([change("c-1")])
            assert await heard(waiting)


async def test_it_is_heard_again_after_the_server_was_restarted(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, await RedisQueue.open(server.url()) as other:
            waiting = await wait_in_vain_so_far(queue)
            server.kill()
            server.start()
            async with asyncio.timeout(LONGEST_SECONDS):
                while not waiting.done():  # a pause lies between two attempts to listen
                    with suppress(QueueUnavailable):  # the connection that it had
                        await other.put([change("c-1")])
                    await asyncio.sleep(0.05)
            assert waiting.result()


async def test_a_server_that_counts_from_less_than_the_one_before_is_heard(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, await RedisQueue.open(server.url()) as other:
            await other.put([change("c-1")])
            async with server.client() as client:
                [news] = await client.keys("*news")
                await client.xadd(news, {"put": 1}, id="99999999999999-0")  # by a clock that was far ahead
            waiting = await wait_in_vain_so_far(queue)
            server.kill()
            server.start()
            numbers = iter(range(1_000_000))
            async with asyncio.timeout(LONGEST_SECONDS):
                while not waiting.done():
                    with suppress(QueueUnavailable):
                        await other.put([change(f"c-{next(numbers)}")])
                    await asyncio.sleep(0.05)
            assert waiting.result()


class Impatient:
    """A server behind a proxy that ends what is idle for so long."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self.calls = 0

    async def read_news(self, _: bytes, *, wait_seconds: float) -> bytes | None:
        assert wait_seconds > self._idle_seconds
        self.calls += 1
        await asyncio.sleep(self._idle_seconds)
        raise QueueUnavailable("it cannot be reached: Connection closed by server.")


@pytest.mark.parametrize(("idle_seconds", "calls"), [(10.0, range(340, 361)), (0.0, range(100, 130))])
@in_virtual_time
async def test_a_proxy_that_ends_idle_connections_leaves_no_long_pauses(idle_seconds: float, calls: range) -> None:
    server = Impatient(idle_seconds)
    listener = Listener(server, asyncio.Event())  # type: ignore[arg-type]  # the part of a server that it uses
    listener.ask()
    await asyncio.sleep(3_600.0)
    await listener.close()
    assert server.calls in calls
