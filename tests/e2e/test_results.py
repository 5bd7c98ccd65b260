"""`--results`: after kills and on a full disk, every change that has left the queue has a line."""

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.processes import Command, RunningSimulator, stopped, wait_for_event, write_changes
from tests.queue.stores import STORES
from worker.queue import Claim, Settlement, open_queue

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "results.json").read_text())
COUNT = 600
KILLS = 6


def changes(count: int) -> list[dict[str, Any]]:
    return [
        {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"grade": "A"}, "change_id": f"c{number}"}
        for number in range(1, count + 1)
    ]


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines, but for what a killed process has left of the last one."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


async def pending(url: str) -> set[str | None]:
    """The change_ids of what is in the queue, once the leases of the process that was killed are over."""
    held: list[Claim] = []
    async with open_queue(url) as queue:
        while (count := (await queue.status()).pending) > len(held):
            held += await queue.claim(1_000, lease_seconds=600.0, owner="test")
            await asyncio.sleep(0.05)
        assert count == len(held)
        assert await queue.settle([Settlement(claim) for claim in held]) == []  # given back
    return {change.change_id for claim in held for change in claim.changes}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_every_settled_change_of_a_killed_run_has_a_line(
    store: str, command: Command, simulator: RunningSimulator
) -> None:
    rng = random.Random(store)
    results = command.folder / "results.jsonl"
    simulator.ask("/seed", {"count": COUNT})
    simulator.ask("/options", {"latency": 0.05})
    async with STORES[store](command.folder) as url:
        more = {"METASYNC_QUEUE_URL": url, "METASYNC_LEASE": "2s", "METASYNC_BATCH_SIZE": "20"}
        command = replace(command, settings={**command.settings, **more})
        write_changes(command.folder / "changes.jsonl", changes(COUNT))
        assert command.run("enqueue", "changes.jsonl").returncode == 0
        everything = {f"c{number}" for number in range(1, COUNT + 1)}
        left: set[str | None] = {*everything}
        for _ in range(KILLS):
            with stopped(command.start("run", "--results", str(results))) as process:
                wait_for_event(process, "change.applied" if left else "worker.started")
                await asyncio.sleep(rng.uniform(0.0, 0.1))  # a random moment is what this is about
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            left = await pending(url)
            assert everything - left <= {line["change_id"] for line in whole_lines(results)}
        assert command.run("run", "--drain", "--results", str(results)).returncode == 0
    assert results.read_bytes().endswith(b"\n")
    lines = whole_lines(results)
    assert {line["change_id"] for line in lines} == everything
    numbers = {line["change_id"]: line["change"] for line in lines}
    assert all(numbers[line["change_id"]] == line["change"] for line in lines)  # what is told twice, under one number


def test_apply_tells_file_line_and_values(command: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"ids": ["chatcmpl-1"], "metadata": {"old": "1"}})
    (command.folder / "one.jsonl").write_text(
        '{"completion_id": "chatcmpl-1", "metadata": {"grade": "A"}}\n\n'
        '{"completion_id": "chatcmpl-none", "metadata": {"grade": "B"}, "change_id": "x"}\n'
    )
    (command.folder / "two.csv").write_text("completion_id,grade\nchatcmpl-2,C\n")
    simulator.ask("/seed", {"ids": ["chatcmpl-2"], "metadata": {"grade": "C"}})
    words = ("apply", "one.jsonl", "two.csv", "--results", "r.jsonl", "--not-found-grace", "0")
    assert command.run(*words, "--with-values").returncode == 3
    validator = jsonschema.Draft202012Validator(SCHEMA)
    lines = {line["completion_id"]: line for line in whole_lines(command.folder / "r.jsonl")}
    for line in lines.values():
        validator.validate(line)
        for field in set(line) - {"before", "after"}:
            assert not validator.is_valid({name: value for name, value in line.items() if name != field}), field
    known = {name: (line["file"], line["line"], line["outcome"], line["reason"]) for name, line in lines.items()}
    assert known == {
        "chatcmpl-1": ("one.jsonl", 1, "applied", None),
        "chatcmpl-none": ("one.jsonl", 3, "dead", "not_found"),
        "chatcmpl-2": ("two.csv", 2, "unchanged", None),
    }
    values = {name: (line["before"], line["after"]) for name, line in lines.items()}
    assert values == {
        "chatcmpl-1": ({"old": "1"}, {"old": "1", "grade": "A"}),
        "chatcmpl-none": (None, None),
        "chatcmpl-2": ({"grade": "C"}, {"grade": "C"}),
    }


def limit_file_size(process: "subprocess.Popen[bytes]", size_bytes: int) -> None:
    """No file of the process can grow beyond that any more; as on a full disk, but for the words."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


@pytest.mark.parametrize("way", ["full", "deleted"])
def test_results_that_cannot_be_written_end_the_run_in_order_and_nothing_is_lost(
    way: str, command: Command, simulator: RunningSimulator
) -> None:
    more = {"METASYNC_LEASE": "10m", "METASYNC_MAX_CONCURRENCY": "8", "METASYNC_SHUTDOWN_GRACE": "10m"}
    command = replace(command, settings={**command.settings, **more})
    simulator.ask("/seed", {"count": COUNT})
    simulator.ask("/options", {"latency": 0.1})
    write_changes(command.folder / "changes.jsonl", changes(COUNT))
    assert command.run("enqueue", "changes.jsonl").returncode == 0
    results = command.folder / "results.jsonl"
    # Larger than the queue's files become: only the results meet the limit.
    size_bytes = 64 * 1024 * 1024
    with results.open("wb") as file:
        file.write(b'{"change":0}\n')
        file.truncate(size_bytes - 1)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    with stopped(command.start("run", "--drain", "--results", str(results))) as process:
        wait_for_event(process, "change.applied")
        if way == "full":
            limit_file_size(process, results.stat().st_size + 100)
        else:
            results.unlink()
        lost = wait_for_event(process, "results.lost")
        summary = wait_for_event(process, "run.summary")
        assert process.wait(60) == 75  # far less than the lease, and than the grace
    why = "File too large" if way == "full" else "it was deleted"
    assert lost["error"] == f"{results}: results cannot be written there: {why}"
    assert (summary["ending"], summary["error"]) == ("results_lost", lost["error"])
    status = json.loads(command.run("status", "--json").stdout)
    assert status["in_flight"] == 0
    assert 0 < status["pending"] == COUNT - summary["applied"]
    if way == "full":
        text = results.read_bytes()
        assert text.endswith(b"\n")
        assert text[size_bytes:].count(b"\n") == summary["applied"]
    results.unlink(missing_ok=True)
    simulator.ask("/options", {"latency": 0.0})
    done = command.run("run", "--drain", "--results", str(results), timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(whole_lines(results)) == status["pending"]
    assert all(metadata == {"grade": "A"} for metadata in simulator.ask("/metadata").values())


def test_an_unusable_results_file_is_reported_before_anything_is_stored(command: Command) -> None:
    write_changes(command.folder / "changes.jsonl", changes(1))
    for words, why in (
        (
            ("--results", "changes.jsonl"),
            "metasync: changes.jsonl: results cannot be written there: it holds something",
        ),
        (("--results", "none/r.jsonl"), "metasync: none/r.jsonl: results cannot be written there: No such file"),
        (("--with-values",), "metasync: --with-values needs --results FILE"),
    ):
        for verb in (("apply", "changes.jsonl"), ("run", "--drain")):
            done = command.run(*verb, *words)
            assert (done.returncode, done.stdout) == (2, "")
            assert why in done.stderr
    assert not (command.folder / "metasync.db").exists()
