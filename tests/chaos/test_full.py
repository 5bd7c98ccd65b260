"""Stores that run out of disk or memory while three workers are busy, until space is freed."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.chaos.crew import LEASE_SECONDS, Crew
from tests.chaos.disk import Disk
from tests.e2e.processes import (
    KEY,
    Command,
    RunningSimulator,
    running_simulator,
    stopped,
    wait_for_event,
    write_changes,
)
from tests.queue.postgres_server import PostgresServer, connected
from tests.queue.redis_server import DURABLE, running
from tests.web.asking import serving, surface_of

# Longer than the leases.
_FULL_SECONDS = LEASE_SECONDS + 1


_IN_FLIGHT = 3
_TRIES = 7  # with the pauses between them, six seconds or more


@contextmanager
def _queue_on_a_disk(folder: Path) -> Iterator[tuple[Disk, RunningSimulator, Command]]:
    """Enqueue changes into a SQLite file on a small disk; each request takes two seconds."""
    flags = ("--completions", str(_IN_FLIGHT), "--latency", "2s")
    with Disk.mounted(megabytes=16) as disk, running_simulator(*flags) as simulator:
        settings = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_QUEUE_URL": f"sqlite:///{disk.path}/queue.db",
            "METASYNC_LOG_FORMAT": "json",
            "METASYNC_HALT_TIMEOUT": "1s",
            "METASYNC_SHUTDOWN_GRACE": "1s",
        }
        command = serving(Command(folder, settings))
        changes = [
            {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"grade": "A"}, "mode": "replace"}
            for number in range(1, _IN_FLIGHT + 1)
        ]
        assert command.run("enqueue", write_changes(folder / "changes.jsonl", changes)).returncode == 0
        yield disk, simulator, command


def _fill_once_all_is_in_flight(disk: Disk, simulator: RunningSimulator) -> None:
    while simulator.requests() < _IN_FLIGHT:
        pass
    disk.fill()


def test_a_daemon_that_cannot_settle_on_a_full_disk_is_not_ready_although_claims_in_vain_succeed(
    tmp_path: Path,
) -> None:
    with _queue_on_a_disk(tmp_path) as (disk, simulator, command), stopped(command.start("run")) as process:
        surface = surface_of(process)
        _fill_once_all_is_in_flight(disk, simulator)
        for _ in range(_TRIES):
            assert wait_for_event(process, "store.unavailable")["operation"] == "settle"
            status, said = surface.ask_json("/readyz")
            assert (status, "the disk is full" in said["failing"].get("store", "")) == (503, True)
            assert "metasync_store_up 0.0" in surface.ask("/metrics")[1]
        disk.make_room()
        wait_for_event(process, "change.applied")
        assert surface.ask_json("/readyz") == (200, {"ready": True, "failing": {}})


def test_a_drain_that_cannot_settle_on_a_full_disk_ends(tmp_path: Path) -> None:
    with _queue_on_a_disk(tmp_path) as (disk, simulator, command):
        with stopped(command.start("run", "--drain")) as process:
            _fill_once_all_is_in_flight(disk, simulator)
            assert wait_for_event(process, "run.summary")["ending"] == "store_away"
            assert process.wait(30) == 75
        disk.make_room()


async def _use_up_the_log(server: PostgresServer) -> None:
    """Write to the server's log until it has no room for it, and crashes."""
    async with connected(server.url()) as connection:
        while True:
            await connection.execute("SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))")


async def test_a_sqlite_file_on_a_full_disk_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(13)
    with Disk.mounted(megabytes=48) as disk:
        async with Crew.at_work(tmp_path, rng, f"sqlite:///{disk.path}/queue.db") as crew:
            for _ in range(2):
                await crew.put(40)
                disk.fill()
                await crew.find_full("the disk is full")
                await crew.until_told("the disk is full")
                await asyncio.sleep(_FULL_SECONDS)
                disk.make_room()
                await crew.see_progress()
            await crew.check()


async def test_a_postgres_server_that_crashes_on_a_full_disk_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(14)
    with Disk.mounted(megabytes=128) as disk, PostgresServer.running(disk.path / "data") as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            await crew.put(40)
            disk.fill()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await _use_up_the_log(server)
            await crew.until_told("store.unavailable")
            await asyncio.sleep(_FULL_SECONDS)
            disk.make_room()
            if server.has_ended():  # it gives up where it cannot even recover
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            await crew.see_progress()
            await crew.check()


async def test_a_redis_server_that_cannot_write_its_file_delays_changes_and_loses_none(tmp_path: Path) -> None:
    rng = random.Random(15)
    with Disk.mounted(megabytes=16) as disk, running(disk.path, {"appendonly": "yes"}) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew:
            for _ in range(2):
                await crew.put(40)
                disk.fill()
                await crew.until_told("it cannot write to its disk")
                await crew.find_full("it cannot write to its disk")
                await asyncio.sleep(_FULL_SECONDS)
                disk.make_room()
                await crew.see_progress()
            await crew.check()


async def test_a_redis_server_without_memory_is_emptied_and_filled_again(tmp_path: Path) -> None:
    rng = random.Random(16)
    with running(tmp_path, DURABLE) as server:
        async with Crew.at_work(tmp_path, rng, server.url()) as crew, server.client() as administrator:
            for _ in range(2):
                await crew.put(80)
                await administrator.config_set("maxmemory", "1")
                await crew.find_full("its memory is used up")
                await crew.until_only_rejected_are_left()
                await administrator.config_set("maxmemory", "0")
                await crew.see_progress()
            await crew.check()
