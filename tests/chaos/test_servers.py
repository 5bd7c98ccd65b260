"""Stores that are restarted, cut off, locked or frozen while three workers are busy."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.crew import LEASE_SECONDS, Crew
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import PostgresServer
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import DURABLE, running

# Longer than the leases and than the workers wait for a store; the second also than their longest pause.
_OUTAGE_SECONDS = LEASE_SECONDS + 1
_LONG_OUTAGE_SECONDS = 10.0

_HOLD_THE_LOCK = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(30_000)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Have another process hold the lock of a SQLite file as long as this lasts."""
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLD_THE_LOCK, str(path), stdin=pipe, stdout=pipe
    )
    assert holder.stdout is not None
    try:
        assert await holder.stdout.readline() == b"held\n"
        yield
    finally:
        await holder.communicate(b"")


async def _load(crew: Crew, rng: random.Random) -> None:
    await crew.put(40)
    await asyncio.sleep(rng.uniform(0.1, 0.3))  # a random moment is what this is about


async def test_a_postgres_server_that_stops_or_crashes_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(5)
    with PostgresServer.running() as server:  # a server of our own, since it is stopped
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            for how, seconds in (("INT", 0.0), ("QUIT", 0.0), ("QUIT", _LONG_OUTAGE_SECONDS)):
                await _load(crew, rng)
                await asyncio.to_thread(server.stop, how)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(server.start)
                await crew.see_progress()
            await crew.check()


async def test_a_postgres_server_that_stands_still_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(9)
    with PostgresServer.running() as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            for seconds in (_OUTAGE_SECONDS, _LONG_OUTAGE_SECONDS):
                await _load(crew, rng)
                await server.freeze()
                await asyncio.sleep(seconds)
                server.thaw()  # now it does the work, long after the callers' time-out
                await crew.see_progress()
            await crew.check()


async def test_a_network_before_postgres_that_cuts_and_swallows_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(6)
    with PostgresServer.running() as server:
        async with (
            Network.before(server.url()) as (network, url),
            Crew.at_work(tmp_path, rng, url, server.url()) as crew,
        ):
            for _ in range(4):
                await _load(crew, rng)
                network.cut()
            await crew.see_progress()
            await _load(crew, rng)
            network.silence()
            await asyncio.sleep(_LONG_OUTAGE_SECONDS)
            network.heal()  # the delayed packets arrive now, long after the callers' time-out
            await crew.see_progress()
            await _load(crew, rng)
            network.silence()
            await asyncio.sleep(_OUTAGE_SECONDS)
            network.cut()
            network.heal()
            await crew.see_progress()
            await crew.check()


async def test_a_redis_server_that_is_killed_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(7)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            for seconds in (0.0, 0.0, _LONG_OUTAGE_SECONDS):
                await _load(crew, rng)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(server.start)
                await crew.see_progress()
            await crew.check()


async def test_a_redis_server_that_hangs_up_or_stands_still_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(8)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew, server.client() as administrator:
            for _ in range(4):
                await _load(crew, rng)
                await administrator.client_kill_filter(_type="normal", skipme=True)
            await crew.see_progress()
            for seconds in (_OUTAGE_SECONDS, _LONG_OUTAGE_SECONDS):
                await _load(crew, rng)
                server.freeze()
                await asyncio.sleep(seconds)
                server.thaw()  # now it does the work, long after the callers' time-out
                await crew.see_progress()
            await crew.check()


async def test_a_network_before_redis_that_cuts_and_swallows_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(10)
    with running(tmp_path, DURABLE) as server:
        async with Proxy(server.port) as network, Crew.at_work(tmp_path, rng, network.url(), server.url()) as crew:
            for _ in range(4):
                await _load(crew, rng)
                network.cut()
            await crew.see_progress()
            await _load(crew, rng)
            with network.silent():
                await asyncio.sleep(_LONG_OUTAGE_SECONDS)
            await crew.see_progress()
            await _load(crew, rng)
            with network.deaf():  # calls are carried out, but the answers are lost
                await asyncio.sleep(_OUTAGE_SECONDS)
                network.cut()
            await crew.see_progress()
            await crew.check()


async def test_a_redis_server_that_forgets_its_functions_loses_no_change(tmp_path: Path) -> None:
    rng = random.Random(11)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew, server.client() as administrator:
            for _ in range(6):
                await _load(crew, rng)
                await administrator.function_flush()
            await crew.see_progress()
            await crew.check()


async def test_a_sqlite_file_that_another_process_locks_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(12)
    path = tmp_path / "queue.db"
    async with Crew.at_work(tmp_path, rng, f"sqlite:///{path}") as crew:
        for seconds in (_OUTAGE_SECONDS, _LONG_OUTAGE_SECONDS):
            await _load(crew, rng)
            async with _locked(path):
                await asyncio.sleep(seconds)
            await crew.see_progress()
        await crew.check()
