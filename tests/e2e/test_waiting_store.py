"""A daemon waits for its store, at the start and later, says why, and continues when it is available."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disk import Disk
from tests.e2e.processes import Command, RunningSimulator, stopped, wait_for_event
from tests.queue.postgres_server import PostgresServer, administer, connected
from tests.queue.redis_server import running as running_redis
from tests.web.asking import Surface
from worker import MetadataChange, open_queue

_SETTLED_SECONDS = 60.0
IDS = [f"chatcmpl-{number}" for number in range(3)]


@dataclass(frozen=True)
class Waiting:
    """A daemon that waits for its store.

    Args:
        said: why, as its log says.
        shown: why, as /readyz says.
    """

    process: "subprocess.Popen[bytes]"
    surface: Surface
    said: str
    shown: str

    def until_ready(self) -> None:
        deadline = time.monotonic() + _SETTLED_SECONDS
        while self.surface.ask("/readyz")[0] != 200:
            assert self.process.poll() is None
            assert time.monotonic() < deadline, self.surface.ask("/readyz")
            time.sleep(0.1)


@contextmanager
def _daemon(command: Command, url: str) -> Any:
    settings = {"METASYNC_QUEUE_URL": url, "METASYNC_HTTP_PORT": "0", "METASYNC_STORE_TIMEOUT": "3s"}
    settings = {**command.settings, **settings}
    with stopped(replace(command, settings=settings).start("run")) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_SETTLED_SECONDS)
        assert process.returncode == 0


def _waiting(process: "subprocess.Popen[bytes]", surface: Surface) -> Waiting:
    """See that it lives, is not ready, and says why."""
    event = wait_for_event(process, "store.unavailable")
    deadline = time.monotonic() + _SETTLED_SECONDS
    while (answer := surface.ask_json("/readyz"))[0] == 200:  # the store is not asked each time
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (answer[0], set(answer[1]["failing"])) == (503, {"store"})
    assert surface.ask("/livez")[0] == 200
    assert process.poll() is None
    return Waiting(process, surface, str(event["error"]), answer[1]["failing"]["store"])


def _surface(process: "subprocess.Popen[bytes]") -> Surface:
    return Surface(int(wait_for_event(process, "web.started")["port"]))


@contextmanager
def _waits_at_the_start(command: Command, url: str) -> Any:
    with _daemon(command, url) as process:
        yield _waiting(process, _surface(process))


async def _works(url: str, simulator: RunningSimulator, waiting: Waiting, grade: str = "A") -> None:
    """See that it is ready, and applies what comes."""
    waiting.until_ready()
    simulator.ask("/seed", {"ids": IDS})
    async with open_queue(url) as queue:
        await queue.put([MetadataChange(each, {"grade": grade}, "replace") for each in IDS])
    deadline = time.monotonic() + _SETTLED_SECONDS
    while any(simulator.ask("/metadata")[each] != {"grade": grade} for each in IDS):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def _drains_to_75(command: Command, url: str) -> str:
    done = replace(command, settings={**command.settings, "METASYNC_QUEUE_URL": url}).run("run", "--drain")
    assert done.returncode == 75, done.stderr
    return done.stderr.splitlines()[-1]


# SQLite


def _newer(path: Path) -> Callable[[], None]:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA user_version = 999")
    connection.close()

    def put_back() -> None:
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()

    return put_back


def _damaged(path: Path) -> Callable[[], None]:
    whole = path.read_bytes()
    path.write_bytes(b"half of a copy" * 100)
    return lambda: _put(path, whole)


def _put(path: Path, whole: bytes) -> None:
    beside = path.with_name("restored.db")
    beside.write_bytes(whole)
    beside.replace(path)


def _without_its_folder(path: Path) -> Callable[[], None]:
    away = path.parent.with_name("away")
    path.parent.rename(away)
    return lambda: _rename(away, path.parent)


def _rename(path: Path, to: Path) -> None:
    path.rename(to)


@pytest.mark.parametrize("amiss", [_newer, _damaged, _without_its_folder], ids=["newer", "damaged", "not mounted"])
async def test_a_file_that_cannot_be_the_queue_yet_is_waited_for(
    amiss: Callable[[Path], Callable[[], None]], command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    path = tmp_path / "volume" / "queue.db"
    path.parent.mkdir()
    url = f"sqlite:///{path}"
    async with open_queue(url):
        pass
    mend = amiss(path)
    assert "cannot be the queue" in _drains_to_75(command, url)
    with _waits_at_the_start(command, url) as waiting:
        assert "cannot be the queue" in waiting.said
        assert str(path) in waiting.shown  # which of all stores
        mend()
        await _works(url, simulator, waiting)


async def test_a_full_disk_at_the_start_is_waited_for(command: Command, simulator: RunningSimulator) -> None:
    with Disk.mounted(4) as disk:
        url = f"sqlite:///{disk.path}/queue.db"
        disk.fill()
        _drains_to_75(command, url)
        with _waits_at_the_start(command, url) as waiting:
            assert "the disk is full" in waiting.said
            disk.make_room()
            await _works(url, simulator, waiting)


async def test_a_missing_file_is_waited_for_and_its_replacement_is_used(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    path, backup = tmp_path / "queue.db", tmp_path / "backup.db"
    url = f"sqlite:///{path}"
    async with open_queue(url) as queue:
        await queue.put([MetadataChange("chatcmpl-backup", {"grade": "B"}, "replace")])
    shutil.copy(path, backup)
    simulator.ask("/seed", {"ids": ["chatcmpl-backup"]})
    with _daemon(command, url) as process:
        surface = _surface(process)
        wait_for_event(process, "change.applied")
        path.rename(tmp_path / "moved.db")
        waiting = _waiting(process, surface)
        assert "moved or deleted" in waiting.said
        assert str(path) in waiting.shown
        assert not path.exists()  # nothing is made where something is to be put back
        (tmp_path / "moved.db").rename(path)
        await _works(url, simulator, waiting)
        recorded = {wait_for_event(process, "change.applied")["completion_id"] for _ in IDS}
        assert recorded == set(IDS)
        path.rename(tmp_path / "moved.db")
        backup.replace(path)  # with the log of the one before beside it
        assert wait_for_event(process, "change.applied")["completion_id"] == "chatcmpl-backup"
        waiting.until_ready()
    for each in (path, tmp_path / "moved.db"):
        found = sqlite3.connect(each)
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found.execute("SELECT count(*) FROM change").fetchone() == (0,)
        found.close()


# PostgreSQL


@asynccontextmanager
async def _database(server: PostgresServer) -> AsyncIterator[str]:
    await administer(server.url(), "CREATE DATABASE app")
    await administer(server.url(), "CREATE ROLE guarded LOGIN PASSWORD 'old-secret'")
    await administer(server.url(), "GRANT ALL ON DATABASE app TO guarded")
    await administer(server.url("app"), "GRANT ALL ON SCHEMA public TO guarded")
    yield server.url("app", user="guarded:old-secret")


async def test_a_database_that_is_missing_or_refuses_logins_is_waited_for(
    command: Command, simulator: RunningSimulator
) -> None:
    with PostgresServer.running() as server:
        async with _database(server) as url:
            with _daemon(command, url) as process:
                surface = _surface(process)
                wait_for_event(process, "worker.started")
                # At work: the password is rotated, and every session ends.
                await administer(server.url(), "ALTER ROLE guarded PASSWORD 'new-secret'")
                await _end_sessions(server)
                waiting = _waiting(process, surface)
                while "password authentication failed" not in waiting.said:
                    waiting = _waiting(process, surface)
                assert "secret" not in waiting.said
                await administer(server.url(), "ALTER ROLE guarded PASSWORD 'old-secret'")
                await _works(url, simulator, waiting)
                # It is dropped for a restore.
                await administer(server.url(), "DROP DATABASE app WITH (FORCE)")
                waiting = _waiting(process, surface)
                await administer(server.url(), "CREATE DATABASE app OWNER guarded")
                async with open_queue(url):
                    pass
                await _works(url, simulator, waiting, "B")
            await administer(server.url(), "DROP DATABASE app WITH (FORCE)")
            assert "there is no such database" in _drains_to_75(command, url)
            with _waits_at_the_start(command, url) as waiting:
                assert "there is no such database" in waiting.said
                await administer(server.url(), "CREATE DATABASE app OWNER guarded")
                await _works(url, simulator, waiting, "C")


async def _end_sessions(server: PostgresServer) -> None:
    async with connected(server.url()) as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'")


async def test_a_password_that_was_rotated_is_read_again_where_it_lies_in_a_file(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    with PostgresServer.running() as server:
        async with _database(server) as url:
            (secrets / "METASYNC_QUEUE_URL").write_text(url)
            settings = {
                **command.settings,
                "METASYNC_SECRETS_DIR": str(secrets),
                "METASYNC_HTTP_PORT": "0",
            }
            with stopped(replace(command, settings=settings).start("run")) as process:
                surface = _surface(process)
                wait_for_event(process, "worker.started")
                await administer(server.url(), "ALTER ROLE guarded PASSWORD 'new-secret'")
                await _end_sessions(server)
                waiting = _waiting(process, surface)
                new = url.replace("old-secret", "new-secret")
                (tmp_path / "renewed").write_text(new)
                (tmp_path / "renewed").replace(secrets / "METASYNC_QUEUE_URL")
                await _works(new, simulator, waiting)


# Redis


async def test_a_server_whose_password_is_another_one_is_waited_for(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    with running_redis(tmp_path) as server:
        url = server.url(user=":secret@")
        assert "the password is wrong" in _drains_to_75(command, url)
        with _waits_at_the_start(command, url) as waiting:
            assert "the password is wrong" in waiting.said
            async with server.client() as client:
                await client.config_set("requirepass", "secret")
            await _works(url, simulator, waiting)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:///{}", "it is a directory"),
        ("mysql://host/database", "must start with"),
        ("postgresql:///database?listen=maybe", "listen"),
        ("redis://host/x", "redis://"),
    ],
)
def test_an_error_that_needs_another_setting_ends_it_at_once(
    url: str, why: str, command: Command, tmp_path: Path
) -> None:
    settings = {**command.settings, "METASYNC_QUEUE_URL": url.format(tmp_path)}
    done = replace(command, settings=settings).run("run")
    assert done.returncode == 2
    assert why in done.stderr
