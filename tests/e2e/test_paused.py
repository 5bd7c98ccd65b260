"""Worker processes paused and resumed under load, with kills: nothing starts, nothing is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.crowd import Crowd
from tests.e2e.processes import Command, running_simulator, stopped
from tests.queue.helpers import change, claim, died, letters
from tests.queue.stores import STORES
from worker import open_queue
from worker.queue import pause, read_pause, resume

WORKERS = 8
ROUNDS = 3
KILLS = 6
LETTERS = 3_000


@pytest.mark.timeout(900)
async def test_eight_workers_start_nothing_in_a_pause_and_lose_nothing(tmp_path: Path) -> None:
    """A hundred times: `python -m benchmarks.pausing`."""
    async with STORES["sqlite"](tmp_path) as url:
        crowd = Crowd(tmp_path, url, WORKERS)
        await crowd.pause_again_and_again(ROUNDS)


@pytest.fixture(params=sorted(STORES))
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with STORES[request.param](tmp_path) as url:
        yield url


async def test_a_purge_that_is_killed_leaves_whole_letters_and_can_be_done_again(url: str, tmp_path: Path) -> None:
    async with open_queue(url) as queue:
        await queue.put([change(f"c-{number}") for number in range(LETTERS)])
        while claimed := await claim(queue):
            assert await queue.settle([died(each) for each in claimed]) == []
        assert len(await letters(queue)) == LETTERS
        command = Command(tmp_path, {"METASYNC_QUEUE_URL": url})
        for kill in range(KILLS):
            with stopped(command.start("dead", "purge", "--older-than", "0.001s")) as process:
                await asyncio.sleep(0.1 * kill)  # at any moment
                process.kill()
            left = {letter.number for letter in await letters(queue)}
            counted = await queue.dead_reasons()
            assert sum(count.letters for count in counted.values()) == len(left)
        assert command.run("dead", "purge", "--older-than", "0.001s").returncode == 0
        assert await letters(queue) == []


async def test_a_pause_or_resume_that_is_killed_is_done_or_not(url: str, tmp_path: Path) -> None:
    command = Command(tmp_path, {"METASYNC_QUEUE_URL": url})
    async with open_queue(url) as queue:
        for kill in range(KILLS):
            for verb in ("pause", "resume"):
                with stopped(command.start(verb)) as process:
                    await asyncio.sleep(0.1 * kill)
                    process.send_signal(signal.SIGKILL)
                found = await read_pause(queue)
                assert found is None or ("@" in found.by and found.reason is None)
        await pause(queue, "ana@host", None)
        assert await resume(queue) is not None


@pytest.mark.timeout(300)
async def test_a_worker_that_is_killed_in_a_pause_comes_back_to_it(url: str, tmp_path: Path) -> None:
    with ExitStack() as running:
        simulator = running.enter_context(running_simulator("--latency", "50ms"))
        crowd = Crowd(tmp_path, url, 1)
        async with open_queue(url) as queue:
            await crowd.put(queue, simulator)
            await pause(queue, "ana@host", "deploy")
        for _ in range(3):
            process = running.enter_context(crowd.started(simulator, 0))
            await crowd.quiet("deploy", simulator)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            crowd.forget()
        assert simulator.requests() == 0
