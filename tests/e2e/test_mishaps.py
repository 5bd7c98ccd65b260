"""Workers that crash, freeze, get a new key, or write a log without a reader."""

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.e2e.processes import Command, RunningSimulator, running_simulator, stopped, wait_for_event, write_changes
from worker import open_queue
from worker.queue import QueueStatus

IDS = [f"chatcmpl-{number}" for number in range(40)]
_SETTLED_SECONDS = 30.0

# Runs the command with a loop of the worker's that breaks when the first update is under way.
_BREAKING = """
import asyncio, importlib, sys
from worker.api import Client
from worker.cli.main import main

module, name, loop = sys.argv[1:4]
owner = getattr(importlib.import_module(module), name)
run, update, begun = getattr(owner, loop), Client.update, asyncio.Event()

async def update_and_tell(self, *args, **kwargs):
    begun.set()
    return await update(self, *args, **kwargs)

async def run_and_break(self, *args, **kwargs):
    running = asyncio.ensure_future(run(self, *args, **kwargs))
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    raise RuntimeError("broken")

Client.update = update_and_tell
setattr(owner, loop, run_and_break)
sys.exit(main(sys.argv[4:]))
"""


def _changes(grade: str) -> list[dict[str, Any]]:
    return [{"completion_id": each, "metadata": {"grade": grade}, "mode": "replace"} for each in IDS]


def _enqueue(command: Command, grade: str) -> None:
    done = command.run("enqueue", write_changes(command.folder / f"{grade}.jsonl", _changes(grade)))
    assert done.returncode == 0, done.stderr


def _status(command: Command) -> QueueStatus:
    async def ask() -> QueueStatus:
        async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
            return await queue.status()

    return asyncio.run(ask())


def _wait_until_applied(simulator: RunningSimulator, grade: str) -> None:
    deadline = time.monotonic() + _SETTLED_SECONDS
    while set(map(str, simulator.ask("/metadata").values())) != {str({"grade": grade})}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _freeze(process: subprocess.Popen[bytes], queue: Path) -> None:
    """Stop it between two transactions: within one, nobody else could write."""
    with closing(apsw.Connection(str(queue))) as other:
        while True:
            process.send_signal(signal.SIGSTOP)
            while not _stands_still(process.pid):
                time.sleep(0.001)
            try:
                other.execute("BEGIN IMMEDIATE; ROLLBACK")
            except apsw.BusyError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.001)
            else:
                return


def _stands_still(pid: int) -> bool:
    """Whether all its threads have heeded the signal."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return {each.read_text().rpartition(")")[2].split()[0] for each in threads} == {"T"}


@pytest.mark.parametrize(
    "loop",
    [
        "worker.engine.leases Leases heartbeat",
        "worker.engine.leases Leases expire",
        "worker.engine.reader Reader run",
        "worker.engine.sharing Sharing run",
        "worker.engine.draining DrainWatch run",
        "worker.engine.pool ApplierPool run",
    ],
)
def test_a_fault_in_the_worker_ends_it_with_1_and_gives_back_what_it_held(
    loop: str, command: Command, simulator: RunningSimulator
) -> None:
    command = replace(command, settings={**command.settings, "METASYNC_LEASE": "10m", "METASYNC_MAX_CONCURRENCY": "4"})
    simulator.ask("/seed", {"ids": IDS})
    simulator.ask("/options", {"latency": 60.0})
    _enqueue(command, "A")
    words = [sys.executable, "-c", _BREAKING, *loop.split(), "run", "--drain"]
    done = subprocess.run(
        words, cwd=command.folder, env=command.environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert b"RuntimeError: broken" in done.stderr
    status = _status(command)
    assert (status.pending, status.in_flight, status.dead) == (len(IDS), 0, 0)
    simulator.ask("/options", {"latency": 0.0})
    again = command.run("run", "--drain", timeout=60)  # far less than the lease
    assert again.returncode == 0, again.stderr
    _wait_until_applied(simulator, "A")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_worker_with_an_unread_log_works_on_and_releases_everything(
    log_format: str, command: Command, simulator: RunningSimulator
) -> None:
    command = replace(command, settings={**command.settings, "METASYNC_LOG_FORMAT": log_format})
    simulator.ask("/seed", {"ids": IDS})
    with stopped(command.start("run")) as process:
        assert process.stderr is not None
        assert b"queue.opened" in process.stderr.readline()
        assert b"worker.started" in process.stderr.readline()
        process.stderr.close()
        for grade in ("A", "B"):  # the first unread line, and later ones
            _enqueue(command, grade)
            _wait_until_applied(simulator, grade)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_SETTLED_SECONDS) == 0
        process.stderr = None  # it is closed: do not read from it
    status = _status(command)
    assert (status.pending, status.in_flight, status.dead) == (0, 0, 0)


def test_a_worker_that_stood_still_while_another_took_over_sends_nothing_more_of_what_it_held(tmp_path: Path) -> None:
    flags = ("--seed", "1", "--latency", "100ms-300ms", "--history", "100")
    with running_simulator(*flags) as simulator, (tmp_path / "frozen.log").open("wb+") as log:
        simulator.ask("/seed", {"ids": IDS})
        settings = {
            "OPENAI_API_KEY": "sk-test-0123456789",
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_LOG_FORMAT": "json",
            "METASYNC_LEASE": "2s",
            "METASYNC_MAX_CONCURRENCY": "4",
        }
        command = Command(tmp_path, settings)
        _enqueue(command, "A")
        with stopped(command.start("run", stderr=log)) as process:
            while b"change.applied" not in Path(log.name).read_bytes():
                assert process.poll() is None
                time.sleep(0.02)
            _freeze(process, command.folder / "metasync.db")
            assert _status(command).in_flight > 4  # it holds more than is under way
            _enqueue(command, "B")
            other = command.run("run", "--drain", timeout=60)  # waits for the leases of the one that stands still
            assert other.returncode == 0, other.stderr
            before = simulator.requests()
            process.send_signal(signal.SIGCONT)
            while b"lease.lost" not in Path(log.name).read_bytes():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(_SETTLED_SECONDS) == 0
        assert simulator.requests() == before
        counters = simulator.ask("/counters")
        assert (counters["violations"], counters["read_violations"]) == ([], [])
        assert simulator.ask("/metadata") == {each: {"grade": "B"} for each in IDS}
        for each in IDS:
            grades = [metadata["grade"] for metadata in simulator.ask(f"/history/{each}")]
            assert grades == sorted(grades)
        status = _status(command)
        assert (status.pending, status.in_flight, status.dead) == (0, 0, 0)


def test_a_key_file_that_is_replaced_is_read_before_the_old_key_is_refused(tmp_path: Path) -> None:
    old, new, secrets = "sk-old-0123456789", "sk-new-0123456789", tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "OPENAI_API_KEY").write_text(old)
    with running_simulator("--api-key", old) as simulator:
        simulator.ask("/seed", {"ids": IDS})
        settings = {
            "METASYNC_SECRETS_DIR": str(secrets),
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_LOG_FORMAT": "json",
        }
        command = Command(tmp_path, settings)
        with stopped(command.start("run")) as process:
            wait_for_event(process, "worker.started")
            _enqueue(command, "A")
            _wait_until_applied(simulator, "A")
            (tmp_path / "renewed").write_text(new)
            (tmp_path / "renewed").replace(secrets / "OPENAI_API_KEY")
            simulator.ask("/options", {"api_key": new})
            _enqueue(command, "B")
            _wait_until_applied(simulator, "B")
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=_SETTLED_SECONDS)
        assert process.returncode == 0
        assert simulator.ask("/counters")["counters"]["requests"]["update"].keys() == {"200"}  # and not one 401
        assert b"worker.halted" not in log


def test_a_low_limit_of_open_files_is_raised_as_far_as_it_may_be(command: Command, simulator: RunningSimulator) -> None:
    few = ("sh", "-c", 'ulimit -S -n 40; exec "$@"', "sh")  # fewer than requests at once
    simulator.ask("/seed", {"ids": IDS})
    simulator.ask("/options", {"latency": 1.0})
    _enqueue(command, "A")
    done = replace(command, within=few).run("run", "--drain")
    assert done.returncode == 0, done.stderr
    assert "too many open files" not in done.stderr
