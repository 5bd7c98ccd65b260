"""Urgent changes, with real processes on a queue file: before a backlog, in a flood, and through kills."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Command, RunningSimulator, running_simulator, stopped, wait_for_event
from tests.log_lines import read_line
from worker.changes import MetadataChange
from worker.queue import open_queue

BACKLOG = 300


def _command(folder: Path, simulator: RunningSimulator, **settings: str) -> Command:
    common = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": simulator.base_url,
        "METASYNC_LOG_FORMAT": "json",
        "METASYNC_MODE": "replace",
    }
    return Command(folder, common | settings)


def _put(folder: Path, prefix: str, count: int, label: str = "x") -> list[str]:
    """Store a change for each of so many completions; those of `urgent` come before all others."""

    async def put(completion_ids: list[str]) -> None:
        async with open_queue(f"sqlite:///{folder}/metasync.db") as queue:
            changes = [MetadataChange(each, {"label": label}, "replace") for each in completion_ids]
            await queue.put(changes, urgent=prefix == "urgent")

    completion_ids = [f"chatcmpl-{prefix}-{number}" for number in range(count)]
    asyncio.run(put(completion_ids))
    return completion_ids


def _seed(simulator: RunningSimulator, count: int) -> None:
    ids = [f"chatcmpl-{prefix}-{number}" for prefix in ("usual", "urgent") for number in range(count)]
    simulator.ask("/seed", {"ids": ids})


def _applied(lines: Iterator[bytes]) -> Iterator[str]:
    """The completions in the order in which they were done."""
    for line in lines:
        event = read_line(line)
        if event["event"] == "change.applied":
            yield str(event["completion_id"])


@pytest.mark.parametrize("urgent", [1, 3])
def test_behind_a_backlog_at_five_hundred_a_minute_they_are_among_the_next(tmp_path: Path, urgent: int) -> None:
    with running_simulator() as simulator:
        _seed(simulator, BACKLOG)
        _put(tmp_path, "usual", BACKLOG)
        command = _command(tmp_path, simulator, METASYNC_REQUESTS_PER_MINUTE="500")
        with stopped(command.start("run")) as process:
            assert process.stderr is not None
            wait_for_event(process, "change.applied")
            wanted = set(_put(tmp_path, "urgent", urgent))
            others = 0
            for completion_id in _applied(iter(process.stderr)):
                wanted.discard(completion_id)
                if not wanted:
                    break
                others += completion_id.startswith("chatcmpl-usual")
            assert others <= BACKLOG // 4  # one in eight of the backlog as a rule; the machine may be busy


@pytest.mark.parametrize("concurrency", ["1", "4", "50"])
def test_a_flood_and_the_others_go_on_side_by_side(tmp_path: Path, concurrency: str) -> None:
    with running_simulator("--latency", "5ms-20ms") as simulator:
        _seed(simulator, BACKLOG)
        for prefix in ("usual", "urgent"):
            _put(tmp_path, prefix, BACKLOG)
        done = _command(tmp_path, simulator, METASYNC_MAX_CONCURRENCY=concurrency).run("run", "--drain")
        assert done.returncode == 0, done.stderr[-2000:]
        order = list(_applied(line.encode() for line in done.stderr.splitlines()))
        assert len(order) == 2 * BACKLOG
        halfway = [each.startswith("chatcmpl-urgent") for each in order[:BACKLOG]]
        assert BACKLOG // 8 <= sum(halfway) <= BACKLOG * 7 // 8
        assert simulator.ask("/counters")["violations"] == []


@pytest.mark.timeout(300)
def test_kills_lose_none_and_mix_nothing_up(tmp_path: Path) -> None:
    rng = random.Random(4)
    with running_simulator("--latency", "20ms-200ms", "--history", "1000") as simulator:
        _seed(simulator, 50)
        settings = {"METASYNC_LEASE": "2s", "METASYNC_MAX_CONCURRENCY": "8"}
        command = _command(tmp_path, simulator, **settings)
        for kill in range(8):
            completion_ids = [*_put(tmp_path, "usual", 50, f"{kill:03d}"), *_put(tmp_path, "urgent", 50, f"{kill:03d}")]
            with stopped(command.start("run")) as process:
                wait_for_event(process, "worker.started")
                time.sleep(rng.uniform(0.0, 0.6))  # a random moment is what this is about
                os.kill(process.pid, signal.SIGKILL)
        done = command.run("run", "--drain")
        assert done.returncode == 0, done.stderr[-2000:]
        assert {metadata["label"] for metadata in simulator.ask("/metadata").values()} == {"007"}
        assert simulator.ask("/counters")["violations"] == []
        for completion_id in completion_ids:
            labels = [metadata["label"] for metadata in simulator.ask(f"/history/{completion_id}")]
            assert labels == sorted(labels)
        status = json.loads(command.run("status", "--json").stdout)
        assert (status["pending"], status["dead"]) == (0, 0)
