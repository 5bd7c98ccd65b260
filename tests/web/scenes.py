"""Workers in the states that a user may see."""

import json
import math
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw

from tests.e2e.processes import (
    KEY,
    Command,
    RunningSimulator,
    running_simulator,
    stopped,
    wait_for_event,
    write_changes,
)
from tests.web.asking import Surface, serving, surface_of

REJECTED = "poison"
_LIMIT_PER_MINUTE = 900
_DEAD = 4  # with too many keys one, and three that are rejected


@contextmanager
def a_service(folder: Path, *flags: str) -> Iterator[tuple[Command, RunningSimulator]]:
    """A simulator, and the command set up for it."""
    with running_simulator("--seed", "7", *flags) as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        yield Command(folder, settings), simulator


@contextmanager
def a_daemon(command: Command, **settings: str) -> Iterator[Surface]:
    """A worker that serves the page; its log goes nowhere, however long it gets."""
    with ThreadPoolExecutor(1) as draining, stopped(serving(command, **settings).start("run")) as process:
        surface = surface_of(process)
        assert process.stderr is not None
        draining.submit(process.stderr.readlines)
        try:
            yield surface
        finally:
            process.kill()


def changes(count: int, *, first: int = 1, value: str = "billing") -> list[dict[str, Any]]:
    """One change for each of so many completions."""
    return [
        {"completion_id": f"chatcmpl-{number:06}", "metadata": {"topic": value, "draft": None}, "mode": "merge"}
        for number in range(first, first + count)
    ]


def with_dead_letters(command: Command) -> None:
    """Let a worker make some: two reasons, one of them a status of 400."""
    too_many: dict[str, Any] = {
        "completion_id": "chatcmpl-000002",
        "metadata": {f"key-{number}": "value" for number in range(16)},
        "change_id": "line-2",
    }
    poisoned: list[dict[str, Any]] = [
        {"completion_id": f"chatcmpl-{number:06}", "metadata": {"topic": REJECTED}, "mode": "replace"}
        for number in (3, 4, 5)
    ]
    dead = [*changes(1, first=2), too_many, *poisoned]
    command.run("enqueue", write_changes(command.folder / "dead.jsonl", dead))
    with stopped(command.start("run")) as process:
        # A rejection kills only when it is met again after another completion's update got through.
        while (count := json.loads(command.run("status", "--json").stdout)["dead"]) < _DEAD:
            good = changes(1, first=6, value=f"billing-{time.monotonic_ns()}")
            command.run("enqueue", write_changes(command.folder / "good.jsonl", good))
        assert count == _DEAD
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def with_an_hour_behind_it(command: Command) -> None:
    """Give the queue the memory of an hour: a backlog that came, and was worked off at the limit."""
    command.run("migrate")
    dice = random.Random(5)
    newest = int(time.time() // 60)
    pending = 3_000.0
    connection = apsw.Connection(str(command.folder / "metasync.db"))
    for minute in range(newest - 59, newest):
        place = minute - (newest - 59)
        rate = 15.2 * (1 - math.exp(-(place + 1) / 3)) * dice.uniform(0.94, 1.0)
        applied = int(60 * rate * dice.uniform(1.25, 1.45)) if pending > 0 else 0
        pending = max(0.0, pending + dice.uniform(300, 1_100) + (19_000 if place in {8, 9} else 0) - applied)
        done = (minute, applied, int(applied * 0.07), int(dice.random() * 12))
        connection.execute(
            "INSERT OR REPLACE INTO history (minute, applied, unchanged, dead) VALUES (?, ?, ?, ?)", done
        )
        sample = (minute, int(pending), pending / max(1.0, rate) / 1.35, rate, 15.4 if place > 2 else None)
        connection.execute("INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?)", sample)
    connection.execute("INSERT OR REPLACE INTO note VALUES ('limit', '15.4', unixepoch())")
    connection.close()


@contextmanager
def at_work(folder: Path, pending: int = 1_000) -> Iterator[Surface]:
    """A worker in the middle of a long afternoon."""
    with (
        a_service(folder, "--latency", "180ms", "--limit", str(_LIMIT_PER_MINUTE), "--reject", REJECTED) as (
            command,
            simulator,
        ),
        ExitStack() as stack,
    ):
        simulator.ask("/seed", {"count": pending})
        with_dead_letters(command)
        with_an_hour_behind_it(command)
        command.run("enqueue", "--batch", "labels", write_changes(folder / "changes.jsonl", changes(pending)))
        yield stack.enter_context(a_daemon(command))


@contextmanager
def halted(folder: Path) -> Iterator[Surface]:
    """A worker whose key is refused."""
    with a_service(folder) as (command, simulator):
        simulator.ask("/switches", {"bad_key": True})
        with_an_hour_behind_it(command)
        command.run("enqueue", write_changes(folder / "changes.jsonl", changes(40)))
        with stopped(serving(command).start("run")) as process:
            surface = surface_of(process)
            wait_for_event(process, "worker.halted")
            yield surface


@contextmanager
def empty(folder: Path) -> Iterator[Surface]:
    """A worker that has never had anything to do."""
    with a_service(folder) as (command, _), a_daemon(command) as surface:
        yield surface
