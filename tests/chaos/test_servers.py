"""Stores that are restarted, cut off or struck dumb while three workers are busy."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.crew import LEASE_SECONDS, Crew
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import PostgresServer
from tests.queue.redis_server import DURABLE, running

# Longer than the leases and than the workers wait for a store.
_OUTAGE_SECONDS = LEASE_SECONDS + 1


@asynccontextmanager
async def _postgres() -> AsyncIterator[PostgresServer]:
    """Run a server of this test's own, as nobody else's may be stopped."""
    server = PostgresServer()
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        server.remove()


async def _load(crew: Crew, rng: random.Random) -> None:
    await crew.put(40)
    await asyncio.sleep(rng.uniform(0.1, 0.3))  # a random moment is what this is about


async def test_a_postgres_server_that_stops_or_crashes_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with _postgres() as server, Crew.at_work(tmp_path, rng, server.url()) as crew:
        for how, seconds in (("INT", 0.0), ("QUIT", 0.0), ("QUIT", _OUTAGE_SECONDS)):
            await _load(crew, rng)
            await asyncio.to_thread(server.stop, how)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(server.start)
        await crew.check()


async def test_a_network_before_postgres_that_cuts_and_swallows_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(6)
    async with (
        _postgres() as server,
        Network.before(server.url()) as (network, url),
        Crew.at_work(tmp_path, rng, url, server.url()) as crew,
    ):
        for _ in range(4):
            await _load(crew, rng)
            network.cut()
        await _load(crew, rng)
        network.silence()
        await asyncio.sleep(_OUTAGE_SECONDS)
        network.heal()  # what was held up comes now, long after anybody waited for it
        await _load(crew, rng)
        network.silence()
        await asyncio.sleep(_OUTAGE_SECONDS)
        network.cut()
        network.heal()
        await crew.check()


async def test_a_redis_server_that_is_killed_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(7)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            for seconds in (0.0, 0.0, _OUTAGE_SECONDS):
                await _load(crew, rng)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(server.start)
            await crew.check()


async def test_a_redis_server_that_hangs_up_or_stands_still_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(8)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew, server.client() as administrator:
            for _ in range(4):
                await _load(crew, rng)
                await administrator.client_kill_filter(_type="normal", skipme=True)
            for _ in range(2):
                await _load(crew, rng)
                server.freeze()
                await asyncio.sleep(_OUTAGE_SECONDS)
                server.thaw()  # it does now what was asked of it, long after anybody waited for the answer
            await crew.check()
