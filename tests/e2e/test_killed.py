"""Nothing is lost, with real processes: after kills at any moment, every change ends where it should."""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Command, RunningSimulator, running_simulator, stopped, wait_for_event, write_changes

COMPLETIONS = 120
KILLS = 20


def _changes(rng: random.Random, first: int, count: int) -> list[dict[str, Any]]:
    """Numbered changes of random completions: merges, replaces and removals."""
    changes = []
    for number in range(first, first + count):
        change: dict[str, Any] = {"completion_id": f"chatcmpl-{rng.randrange(COMPLETIONS)}"}
        match rng.randrange(4):
            case 0:
                change |= {"mode": "replace", "metadata": {"last": f"{number:06d}", "fresh": "yes"}}
            case 1:
                change["metadata"] = {"last": f"{number:06d}", f"key{rng.randrange(6)}": None}
            case _:
                change["metadata"] = {"last": f"{number:06d}", f"key{rng.randrange(6)}": str(number)}
        changes.append(change)
    return changes


def _wanted(changes: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    state: dict[str, dict[str, str]] = {f"chatcmpl-{number}": {} for number in range(COMPLETIONS)}
    for change in changes:
        before = {} if change.get("mode") == "replace" else state[change["completion_id"]]
        after = before | change["metadata"]
        state[change["completion_id"]] = {key: value for key, value in after.items() if value is not None}
    return state


@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing_and_mix_nothing_up(tmp_path: Path) -> None:
    rng = random.Random(4)
    flags = ("--seed", "1", "--latency", "20ms-200ms", "--fault", "internal_error=0.02", "--fault", "dropped=0.02")
    with running_simulator(*flags, "--fault", "cut_off=0.02", "--history", "1000") as simulator:
        ids = [f"chatcmpl-{number}" for number in range(COMPLETIONS)]
        simulator.ask("/seed", {"ids": ids[: COMPLETIONS // 2]})
        simulator.ask("/seed", {"ids": ids[COMPLETIONS // 2 :], "lag_seconds": 3.0})
        command = Command(
            tmp_path,
            {
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": simulator.base_url,
                "METASYNC_LOG_FORMAT": "json",
                "METASYNC_LEASE": "2s",
                "METASYNC_MAX_CONCURRENCY": "16",
                "METASYNC_MAX_ATTEMPTS": "20",
            },
        )
        changes: list[dict[str, Any]] = []
        for kill in range(KILLS):
            batch = _changes(rng, len(changes), 100)
            changes += batch
            assert command.run("enqueue", write_changes(tmp_path / f"{kill}.jsonl", batch)).returncode == 0
            _run_and_kill(command, rng.uniform(0.0, 0.6))
        done = command.run("run", "--drain")
        assert done.returncode == 0, done.stderr[-2000:]
        assert simulator.ask("/metadata") == _wanted(changes)
        counters = simulator.ask("/counters")
        assert counters["violations"] == []
        for completion_id in ids:
            numbers = [metadata["last"] for metadata in simulator.ask(f"/history/{completion_id}")]
            assert numbers == sorted(numbers)
        status = json.loads(command.run("status", "--json").stdout)
        assert (status["pending"], status["dead"]) == (0, 0)


def _run_and_kill(command: Command, after_seconds: float) -> None:
    with stopped(command.start("run")) as process:
        wait_for_event(process, "worker.started")
        time.sleep(after_seconds)  # a random moment is what this is about
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("flags", "exit_code"), [((), 0), (("--drain",), 75)])
def test_sigterm_finishes_or_releases_everything_and_the_next_run_takes_up_at_once(
    command: Command, simulator: RunningSimulator, flags: tuple[str, ...], exit_code: int
) -> None:
    command = replace(command, settings={**command.settings, "METASYNC_LEASE": "10m", "METASYNC_MAX_CONCURRENCY": "8"})
    changes = [
        {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"grade": "A"}, "mode": "replace"}
        for number in range(1, 301)
    ]
    simulator.ask("/seed", {"count": 300})
    simulator.ask("/options", {"latency": 0.2})
    assert command.run("enqueue", write_changes(command.folder / "changes.jsonl", changes)).returncode == 0
    with stopped(command.start("run", *flags)) as process:
        wait_for_event(process, "change.applied")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == exit_code
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert "worker.stopping" in events
    assert events[-1] == "run.summary"
    status = json.loads(command.run("status", "--json").stdout)
    assert (status["in_flight"], status["waiting"]) == (0, 0)
    assert 0 < status["pending"] < 300
    simulator.ask("/options", {"latency": 0.0})
    done = command.run("run", "--drain", timeout=60)  # far less than the lease
    assert done.returncode == 0
    assert simulator.ask("/counters")["violations"] == []
    assert all(metadata == {"grade": "A"} for metadata in simulator.ask("/metadata").values())


def test_a_second_ctrl_c_ends_at_once(command: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"ids": ["chatcmpl-1"]})
    simulator.ask("/fail-next", {"faults": ["hang"]})
    change = [{"completion_id": "chatcmpl-1", "metadata": {"grade": "A"}, "mode": "replace"}]
    command.run("enqueue", write_changes(command.folder / "changes.jsonl", change))
    with stopped(command.start("run")) as process:
        wait_for_event(process, "worker.started")
        while not simulator.ask("/counters")["counters"]["in_flight"]:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        wait_for_event_or_text(process, "worker.stopping")
        process.send_signal(signal.SIGINT)
        process.wait(10)
        assert process.returncode == 130


def wait_for_event_or_text(process: "subprocess.Popen[bytes]", name: str) -> None:
    """Like `wait_for_event`, for a log with sentences for the terminal in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if name.encode() in line:
            return
    raise AssertionError(f"the process ended without {name}")
