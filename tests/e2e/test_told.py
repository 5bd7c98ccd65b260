"""What the service tells one worker process, the others learn from the store."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator, stopped, wait_for_event
from tests.queue.stores import STORES
from worker import MetadataChange, open_queue
from worker.queue.notes import at_work

IDS = [f"chatcmpl-{number}" for number in range(2_000)]
_BOUND_SECONDS = 30.0


@pytest.fixture(params=sorted(STORES))
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A queue that has work for two for a minute."""
    async with STORES[request.param](tmp_path) as url:
        async with open_queue(url) as queue:
            await queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in IDS])
        yield url


def _command(folder: Path, url: str, simulator: RunningSimulator) -> Command:
    settings = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": simulator.base_url,
        "METASYNC_QUEUE_URL": url,
        "METASYNC_BATCH_SIZE": "4",
        "METASYNC_MAX_CONCURRENCY": "4",
        "METASYNC_LOG_FORMAT": "json",
        "METASYNC_LOG_LEVEL": "warning",
    }
    return Command(folder, settings)


def test_a_key_that_is_refused_to_one_halts_that_one_alone_where_the_others_gets_through(
    url: str, tmp_path: Path
) -> None:
    with running_simulator("--api-key", KEY, "--latency", "100ms") as simulator:
        simulator.ask("/seed", {"ids": IDS})
        good = _command(tmp_path, url, simulator)
        bad = replace(good, settings={**good.settings, "OPENAI_API_KEY": "sk-refused-0123456789"})
        log = tmp_path / "good.log"
        with log.open("wb") as stderr, stopped(good.start("run", "--log-level", "info", stderr=stderr)):
            _until(lambda: log.read_text().count("change.applied") > 0)
            with stopped(bad.start("run")) as refused:
                halted = wait_for_event(refused, "worker.halted")
                assert (halted["reason"], halted["status"]) == ("unauthorized", 401)
                applied = log.read_text().count("change.applied")
                _until(lambda: log.read_text().count("change.applied") > applied + 200)
        assert "worker.halted" not in log.read_text()


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _BOUND_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


async def test_a_wait_that_one_worker_is_told_holds_for_the_other(url: str, tmp_path: Path) -> None:
    """Each has a service of its own here, so that it can be nothing but the other's refusal that it waits for."""
    with ExitStack() as running:
        folders = [tmp_path / "generous", tmp_path / "strict"]
        for folder in folders:
            folder.mkdir()
        generous = running.enter_context(running_simulator("--latency", "100ms"))
        strict = running.enter_context(running_simulator("--limit", "1"))
        for simulator in (generous, strict):
            simulator.ask("/seed", {"ids": IDS})
        worker = running.enter_context(stopped(_command(folders[0], url, generous).start("run")))
        async with open_queue(url) as queue, asyncio.timeout(_BOUND_SECONDS):
            while not generous.requests():
                await asyncio.sleep(0.1)
            refused = running.enter_context(stopped(_command(folders[1], url, strict).start("run")))
            waiting: set[int] = set()
            while waiting != {worker.pid, refused.pid}:
                await asyncio.sleep(0.1)
                notes = at_work(await queue.read_notes())
                states = {int(name.split(":")[-2]): msgspec.json.decode(note.text) for name, note in notes.items()}
                waiting = {pid for pid, state in states.items() if state["closed_for_seconds"] > 10.0}
        assert states[worker.pid]["throttled"] == 0
        counted = generous.requests()
        await asyncio.sleep(1.0)
        assert generous.requests() == counted
        assert counted < len(IDS)
