"""The command as a process, as users run it, and a simulator that it talks to."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

from tests.e2e.starter import Started
from tests.log_lines import read_line
from worker.cli.verbs import parser_of
from worker.simulator import Simulator

METASYNC = str(Path(sys.executable).parent / "metasync")
KEY = "sk-test-0123456789"


@dataclass(frozen=True)
class Command:
    """`metasync` in a folder and an environment of its own.

    Args:
        settings: environment variables beyond those that any process needs.
        within: what is put before the command to `run`, such as what bounds its memory.
    """

    folder: Path
    settings: Mapping[str, str]
    within: Sequence[str] = ()

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("METASYNC_", "OPENAI_", "OTEL_"))
        }
        return kept | dict(self.settings)

    def run(self, *words: str, stdin: bytes | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run to the end, with any exit code."""
        with stopped(self.start(*words, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)) as process:
            out, err = process.communicate(stdin, timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())

    def start(
        self,
        *words: str,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int = subprocess.PIPE,
    ) -> "subprocess.Popen[bytes]":
        """Start and leave running; `stopped` ends it."""
        if not self.within and not any(name.startswith("PYTHON") for name in self.settings):
            # At a fifth of the cost.
            return Started(words, self.folder, self.environment, stdin=stdin, stdout=stdout, stderr=stderr)
        return subprocess.Popen(
            [*self.within, METASYNC, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )


@contextmanager
def stopped(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """See to it that the process is gone in the end."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@dataclass(frozen=True)
class RunningSimulator:
    """A simulator that listens on a port of this machine."""

    base_url: str

    def ask(self, path: str, order: object = None) -> Any:
        """Talk to its control endpoints."""
        body = None if order is None else json.dumps(order).encode()
        url = self.base_url.removesuffix("/v1") + "/_simulator" + path
        with urlopen(Request(url, data=body), timeout=30) as answer:
            return json.load(answer)

    def requests(self) -> int:
        """How many have come, those under way included."""
        counters = self.ask("/counters")["counters"]
        return sum(sum(statuses.values()) for statuses in counters["requests"].values()) + int(counters["in_flight"])


@contextmanager
def running_simulator(*flags: str) -> Iterator[RunningSimulator]:
    """What `metasync simulator` with these flags serves, on a free port and a thread of this process, until the end.

    A process of its own would cost each test a third of a second; tests/e2e/test_signals.py starts one.
    """
    given = parser_of(["simulator"]).parse_args(["simulator", *flags])
    simulator = Simulator(given.read(given))
    loop = asyncio.new_event_loop()
    serving = threading.Thread(target=loop.run_forever, name="simulator")
    serving.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(), loop).result()
        yield RunningSimulator(simulator.base_url)
    finally:
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        serving.join()
        loop.close()


def wait_for_event(process: "subprocess.Popen[bytes]", name: str) -> dict[str, Any]:
    """Read the process's JSON log until this event comes."""
    assert process.stderr is not None
    for line in process.stderr:
        event = read_line(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"the process ended without {name}")


def write_changes(path: Path, changes: list[dict[str, Any]]) -> str:
    """A change file."""
    path.write_text("".join(json.dumps(change) + "\n" for change in changes))
    return str(path)
