"""A worker that is stopped while its store drops all packets ends within the grace of a pod and a unit."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from config.settings import Settings
from tests.e2e.processes import METASYNC, Command, RunningSimulator, write_changes
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import new_database
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import a_place

IDS = [f"chatcmpl-{number}" for number in range(400)]
_GRACE_SECONDS = float(Settings.model_fields["shutdown_grace"].default)
_ALLOWED_SECONDS = 40.0


@asynccontextmanager
async def _postgres() -> AsyncIterator[tuple[str, Callable[[], None]]]:
    async with new_database() as url, Network.before(url) as (network, through):
        yield through, network.silence


@asynccontextmanager
async def _redis() -> AsyncIterator[tuple[str, Callable[[], None]]]:
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(a_place())
        proxy = await stack.enter_async_context(Proxy(urlsplit(place.url).port or 6379))
        silence = proxy.silent()
        stack.callback(lambda: silence.__exit__(None, None, None))
        yield proxy.url(prefix=place.base.removesuffix(":")), silence.__enter__


@pytest.mark.parametrize("words", [("run",), ("run", "--drain")], ids=["daemon", "drain"])
@pytest.mark.parametrize("store", [_postgres, _redis], ids=["postgres", "redis"])
async def test_a_stop_while_the_store_swallows_packets_keeps_within_what_a_pod_allows(
    store: Callable[[], object],
    words: tuple[str, ...],
    command: Command,
    simulator: RunningSimulator,
    tmp_path: Path,
) -> None:
    simulator.ask("/seed", {"ids": IDS})
    simulator.ask("/options", {"latency": 0.5})
    async with store() as (url, silence):  # type: ignore[attr-defined]  # a context
        settings = {**command.settings, "METASYNC_QUEUE_URL": url, "METASYNC_MAX_CONCURRENCY": "4"}
        settings["METASYNC_SHUTDOWN_GRACE"] = "1s"
        command = replace(command, settings=settings)
        changes = [{"completion_id": each, "metadata": {"grade": "A"}, "mode": "replace"} for each in IDS]
        path = write_changes(tmp_path / "changes.jsonl", changes)
        done = await asyncio.to_thread(command.run, "enqueue", path)
        assert done.returncode == 0, done.stderr
        process = await asyncio.create_subprocess_exec(
            METASYNC, *words, cwd=command.folder, env=command.environment, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            await _until(process.stderr, "change.applied")
            silence()
            await _until(process.stderr, "store.unavailable")  # it is in the middle of it
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = await process.stderr.read()
            code = await process.wait()
            seconds = time.monotonic() - started
        finally:
            if process.returncode is None:
                process.kill()
    events = [json.loads(line) for line in rest.splitlines()]
    assert code == (75 if "--drain" in words else 0)
    assert [event["event"] for event in events if event["event"] == "run.summary"] == ["run.summary"]
    assert seconds - 1.0 + _GRACE_SECONDS < _ALLOWED_SECONDS, seconds


async def _until(log: asyncio.StreamReader, event: str) -> None:
    async for line in log:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"the process ended without {event}")
