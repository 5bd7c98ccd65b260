"""Batches with real processes: withdrawn under a daemon, filled by two producers, awaited, killed midway."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import (
    KEY,
    Command,
    RunningSimulator,
    running_simulator,
    stopped,
    wait_for_event,
    write_changes,
)
from tests.queue.stores import STORES
from worker import open_queue
from worker.queue import Batch, PendingSelection, pause

COUNT = 1_000  # at this latency, a second or more of work
LATENCY = "60ms"
OF_MANY_PIECES = 3_000
KILLS = 4

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=sorted(STORES))
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with STORES[request.param](tmp_path) as url:
        yield url


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator("--completions", str(COUNT), "--latency", LATENCY) as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, url: str, simulator: RunningSimulator) -> Command:
    settings = {"METASYNC_QUEUE_URL": url, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
    return Command(tmp_path, settings | {"METASYNC_LOG_FORMAT": "json"})


@contextmanager
def daemon(command: Command) -> Iterator["subprocess.Popen[bytes]"]:
    with (command.folder / "log").open("wb") as log, stopped(command.start("run", stderr=log)) as process:
        yield process


def _file(command: Command, key: str, count: int = COUNT) -> str:
    lines = [{"completion_id": f"chatcmpl-{n:06}", "metadata": {key: "yes"}} for n in range(1, count + 1)]
    return write_changes(command.folder / f"{key}.jsonl", lines)


async def _batch(url: str, name: str) -> Batch:
    async with open_queue(url) as queue:
        [batch] = await queue.batches(name)
    return batch


async def _until_something_is_applied(url: str, name: str) -> None:
    async with open_queue(url) as queue:
        while not any(batch.applied for batch in await queue.batches(name)):
            await asyncio.sleep(0.05)


def _holding(simulator: RunningSimulator, key: str) -> int:
    """How many completions have the key."""
    return sum(key in metadata for metadata in simulator.ask("/metadata").values())


async def test_a_wrong_file_is_withdrawn_under_the_hands_of_a_daemon(
    command: Command, url: str, simulator: RunningSimulator
) -> None:
    assert command.run("enqueue", _file(command, "wrong"), "--batch", "wrong").returncode == 0
    assert command.run("enqueue", _file(command, "right"), "--batch", "right").returncode == 0
    with daemon(command):
        await _until_something_is_applied(url, "wrong")
        code, withdrawn = 75, 0
        while code == 75:  # some were in flight to the last
            done = command.run("batch", "withdraw", "wrong", "--yes", "--json")
            told = json.loads(done.stdout)
            code, withdrawn = done.returncode, withdrawn + told["withdrawn"]
            assert (code == 75) == (told["in_flight"] > 0)
        assert code == 0
        assert command.run("batch", "wait", "right").returncode == 0
        assert command.run("batch", "wait", "wrong").returncode == 3
    wrong, right = await _batch(url, "wrong"), await _batch(url, "right")
    assert (wrong.withdrawn, wrong.dead, wrong.applied + withdrawn) == (withdrawn, 0, COUNT)
    assert withdrawn
    assert (right.applied, right.withdrawn) == (COUNT, 0)
    assert (_holding(simulator, "wrong"), _holding(simulator, "right")) == (wrong.applied, COUNT)


async def test_two_producers_of_one_batch_wait_for_all_of_it(
    command: Command, url: str, simulator: RunningSimulator
) -> None:
    files = [_file(command, key) for key in ("one", "two")]
    with daemon(command):
        producers = [command.start("enqueue", file, "--batch", "both", "--wait") for file in files]
        for producer in producers:
            with stopped(producer):
                out, err = producer.communicate(timeout=300)
                assert producer.returncode == 0, err
                assert out.decode().splitlines()[-1] == "done"
        batch = await _batch(url, "both")
    assert (batch.changes, batch.applied) == (2 * COUNT, 2 * COUNT)
    assert (_holding(simulator, "one"), _holding(simulator, "two")) == (COUNT, COUNT)


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_a_producer_beside_a_daemon_is_told_what_became_of_its_file(command: Command, count: int) -> None:
    keys = {f"key{number}": "x" for number in range(9)}
    more = {f"more{number}": "x" for number in range(9)}  # with the others more than sixteen
    lines: list[dict[str, Any]] = [
        {"completion_id": f"chatcmpl-{n:06}", "metadata": metadata}
        for n in range(1, count + 1)
        for metadata in (keys, more)
    ]
    file = write_changes(command.folder / "labels.jsonl", lines)
    with daemon(command):
        good = json.loads(command.run("enqueue", _file(command, "good", 60), "--wait", "--json").stdout)
        done = command.run("enqueue", file, "--wait", "--json")
        again = command.run("enqueue", _file(command, "good", 60), "--wait")
    assert (good["exit_code"], good["waited"]["batch"]["applied"], good["enqueued"]["added"]) == (0, 60, 60)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["waited"]["ending"]) == (3, 3, "done")
    batch = told["waited"]["batch"]
    assert (batch["applied"], batch["dead"], batch["pending"]) == (count, count, 0)
    assert batch["name"] == told["enqueued"]["batch"]
    assert again.returncode == 0
    assert again.stdout.splitlines()[-2:] == [f"batch {again.stdout.split()[8]}: 0 applied, 60 unchanged", "done"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_wait_that_is_cut_short_can_be_gone_on_with(command: Command, url: str, number: signal.Signals) -> None:
    with stopped(command.start("enqueue", _file(command, "good", 50), "--batch", "good", "--wait")) as process:
        assert process.stderr is not None
        assert b"no worker is running" in process.stderr.readline()  # so it waits
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    if number is not signal.SIGKILL:
        assert process.returncode == 75, err
        assert out.decode().splitlines()[-1] == (
            "not finished (interrupted: no worker is running); the changes stay in the queue: "
            "`metasync batch wait good` continues"
        )
    assert (await _batch(url, "good")).pending == 50
    with daemon(command):
        done = command.run("batch", "wait", "good")
    assert (done.returncode, done.stdout) == (0, "batch good: 50 applied\ndone\n")


async def test_a_withdrawal_that_is_killed_leaves_what_can_be_withdrawn(command: Command, url: str) -> None:
    assert command.run("enqueue", _file(command, "wrong", OF_MANY_PIECES), "--batch", "wrong").returncode == 0
    for kill in range(KILLS):
        with stopped(command.start("batch", "withdraw", "wrong", "--yes")) as process:
            await asyncio.sleep(0.2 * kill)  # at any moment
            process.kill()
        async with open_queue(url) as queue:
            [batch] = await queue.batches("wrong")
            left = [change async for change in queue.pending_changes(PendingSelection(batch="wrong"))]
        assert (batch.pending, batch.withdrawn) == (len(left), OF_MANY_PIECES - len(left))
    assert command.run("batch", "withdraw", "wrong", "--yes").returncode == 0
    assert (await _batch(url, "wrong")).withdrawn == OF_MANY_PIECES


async def test_what_waits_in_a_paused_queue_says_by_whom(command: Command, url: str) -> None:
    async with open_queue(url) as queue:
        await pause(queue, "ana@host", "deploy")
    with stopped(command.start("run")) as process:
        wait_for_event(process, "queue.paused")
        done = command.run("enqueue", _file(command, "good", 3), "--batch", "good", "--wait")
        assert done.returncode == 75
        assert "not finished (paused by ana@host since " in done.stdout
        assert done.stdout.endswith(
            "deploy); the changes stay in the queue: `metasync resume`, then `metasync batch wait good` continues\n"
        )
        timed = json.loads(command.run("batch", "wait", "good", "--timeout", "1s", "--json").stdout)
        assert (timed["ending"], timed["exit_code"], timed["batch"]["pending"]) == ("timeout", 75, 3)
        assert command.run("resume").returncode == 0
        assert command.run("batch", "wait", "good", "--timeout", "100s").returncode == 0
