"""The command and the simulator as processes, as users run them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

from tests.log_lines import read_line

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
        done = subprocess.run(
            [*self.within, METASYNC, *words],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *words: str, stderr: IO[bytes] | int = subprocess.PIPE) -> "subprocess.Popen[bytes]":
        """Start and leave running; `stopped` ends it."""
        return subprocess.Popen(
            [METASYNC, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
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
    """`metasync simulator` as a process."""

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
def running_simulator(folder: Path, *flags: str) -> Iterator[RunningSimulator]:
    """A simulator on a free port, until the end."""
    with stopped(Command(folder, {}).start("simulator", *flags, stderr=subprocess.DEVNULL)) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        yield RunningSimulator(next(word for word in line.split() if word.startswith("http")))
        process.send_signal(signal.SIGTERM)
        process.wait(10)


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
