"""A signal stops the command in order at any moment: in start-up, as process 1 of a container, in every verb."""

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from tests.e2e.processes import METASYNC, Command, RunningSimulator, stopped, wait_for_event, write_changes
from tests.needs import permitted
from worker import open_queue

IDS = [f"chatcmpl-{number}" for number in range(200)]
_DEADLINE_SECONDS = 60.0
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


def _may_unshare() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


as_first_process = permitted(_may_unshare(), "only root can have a PID namespace of its own")


def _enqueue(command: Command) -> None:
    changes = [{"completion_id": each, "metadata": {"grade": "A"}, "mode": "replace"} for each in IDS]
    done = command.run("enqueue", write_changes(command.folder / "changes.jsonl", changes))
    assert done.returncode == 0, done.stderr


def _start(command: Command, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        words,
        cwd=command.folder,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _held(command: Command) -> int:
    async def ask() -> int:
        async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
            return (await queue.status()).in_flight

    return asyncio.run(ask())


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _child_of(process: "subprocess.Popen[bytes]") -> int:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _until(lambda: bool(path.read_text().split()))
    return int(path.read_text().split()[0])


@as_first_process
@pytest.mark.parametrize(("words", "code"), [(("run",), 0), (("run", "--drain"), 75)], ids=["daemon", "drain"])
def test_the_first_process_of_a_container_ends_at_any_moment_of_its_start_and_leaves_nothing_claimed(
    words: tuple[str, ...], code: int, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"ids": IDS})
    simulator.ask("/options", {"latency": 0.3})
    command = replace(command, settings={**command.settings, "METASYNC_HTTP_PORT": "0"})
    for moment in range(8):
        _enqueue(command)  # so that there is something to do however much the last one did
        with stopped(_start(command, *_UNSHARE, METASYNC, *words, "--shutdown-grace", "5s")) as process:
            pid = _child_of(process)
            _until(lambda: _catches(pid, signal.SIGTERM))  # noqa: B023 -- before that, nothing can be caught
            time.sleep(0.15 * moment)  # somewhere in the start
            os.kill(pid, signal.SIGTERM)
            _, log = process.communicate(timeout=_DEADLINE_SECONDS)
            assert process.returncode == code, (moment, log.decode())
            assert b"Traceback" not in log
        assert _held(command) == 0, moment


@pytest.mark.parametrize(
    "becomes", ["raise RuntimeError('unreadable schema')", "pass"], ids=["another error", "nothing"]
)
def test_a_signal_during_an_import_is_not_lost_in_the_library(becomes: str, command: Command) -> None:
    program = f"""
import os, signal, sys
from worker.cli import main, verbs
parser_of = verbs.parser_of
def importing(names):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        {becomes}
    return parser_of(names)
verbs.parser_of = importing
sys.exit(main.main())
"""
    words = [sys.executable, "-c", program, "run", "--drain"]
    done = subprocess.run(
        words, cwd=command.folder, env=command.environment, capture_output=True, timeout=_DEADLINE_SECONDS, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (75, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_stops_a_worker_in_order(
    number: signal.Signals, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"ids": IDS})
    simulator.ask("/options", {"latency": 0.2})
    _enqueue(command)
    with stopped(command.start("run", "--max-concurrency", "4")) as process:
        wait_for_event(process, "change.applied")
        process.send_signal(number)
        _, log = process.communicate(timeout=_DEADLINE_SECONDS)
        assert process.returncode == 0
    assert b"run.summary" in log
    assert _held(command) == 0


def test_an_inherited_ignored_hang_up_stays_ignored(command: Command, simulator: RunningSimulator) -> None:
    with stopped(_start(command, "nohup", METASYNC, "run")) as process:
        assert process.stderr is not None
        while b"worker.started" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        simulator.ask("/seed", {"ids": IDS})
        _enqueue(command)
        wait_for_event(process, "change.applied")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_DEADLINE_SECONDS)
        assert process.returncode == 0


def _is_empty(pipe: IO[bytes]) -> bool:
    """Whether all that was written there was read."""
    waiting_bytes: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return waiting_bytes == 0


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (("enqueue", "--format", "jsonl", "-"), signal.SIGTERM, 75),
        (("enqueue", "--format", "jsonl", "-"), signal.SIGINT, 75),
        (("enqueue", "--strict", "--format", "jsonl", "-"), signal.SIGTERM, 75),
        (("apply", "--format", "jsonl", "-"), signal.SIGHUP, 75),
        (("status", "--watch"), signal.SIGTERM, 75),
        (("status", "--watch"), signal.SIGINT, 130),
        (("simulator",), signal.SIGTERM, 0),
    ],
    ids=lambda each: each.name if isinstance(each, signal.Signals) else "",
)
def test_every_verb_ends_at_a_signal_even_where_it_waits_for_input(
    words: tuple[str, ...], number: signal.Signals, code: int, command: Command
) -> None:
    command.run("migrate")
    with stopped(command.start(*words, stdin=subprocess.PIPE)) as process:
        if words[0] in ("enqueue", "apply"):
            assert process.stdin is not None
            process.stdin.write(b"{")
            process.stdin.flush()
            _until(partial(_is_empty, process.stdin))  # it is at it, and nothing else comes
        else:
            assert process.stdout is not None
            assert process.stdout.readline()
        process.send_signal(number)
        assert process.wait(_DEADLINE_SECONDS) == code
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_worker_works_with_any_closed_standard_streams(
    closed: tuple[int, ...], command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"ids": IDS})
    _enqueue(command)
    ends = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {ends}', METASYNC, "run", "--drain"],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (b"run.summary" in done.stderr) is (2 not in closed)
    assert len(simulator.ask("/metadata")) == len(IDS)
