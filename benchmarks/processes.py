"""Processes under measurement: their cores, their CPU time and their memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LOOK_SECONDS = 0.02


def pin(process_id: int, *, last: bool) -> None:
    """Keep contender and server on different cores, if the system can."""
    cores = _cores()
    if cores:
        os.sched_setaffinity(process_id, {cores[-1]} if last else set(cores[:-1]) or {cores[0]})


def pin_to(process_id: int, number: int) -> None:
    """Keep a process on one core, in turns, if the system can."""
    cores = _cores()
    if cores:
        os.sched_setaffinity(process_id, {cores[number % len(cores)]})


def _cores() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def cpu_seconds(process_id: int) -> float:
    """The CPU time of its threads until now, in nanosecond steps; 0 if the system does not tell."""
    try:
        threads = list(Path(f"/proc/{process_id}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def peak_mb(process_id: int | str = "self") -> float:
    """The most memory of the program, without that of the process before it became this program.

    wait4's ru_maxrss does not fit: a child begins with its parent's. 0 if the system does not tell.
    """
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


class Watched:
    """A process that is watched until it ends: the peak of memory lags by 20 ms at most."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        folder: str | Path,
        log: IO[bytes] | int = subprocess.DEVNULL,
        output: IO[bytes] | int = subprocess.DEVNULL,
    ) -> None:
        self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=log)
        self._times: list[float] = []
        self._cpu_seconds: list[float] = []
        self._peak_mb = 0.0
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def __repr__(self) -> str:
        return f"<Watched {self.process.pid} [{'ended' if self._ended.is_set() else 'running'}]>"

    def cpu_seconds_at(self, moment: float) -> float:
        """Its CPU time at a moment of the monotonic clock."""
        return self._cpu_seconds[min(bisect_left(self._times, moment), len(self._times) - 1)]

    def stop(self) -> tuple[float, float]:
        """Terminate it, and wait. One that ended before is an error here; Popen's own call would take its status."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[float, float]:
        """CPU seconds and peak megabytes of a command that succeeds.

        Raises:
            SystemExit: it failed.
        """
        _, status, usage = os.wait4(self.process.pid, 0)
        self._ended.set()
        self._watching.join()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            raise SystemExit(f"{self.process.args!r} ended with {self.process.returncode}")
        inherited_mb = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return usage.ru_utime + usage.ru_stime, self._peak_mb or inherited_mb

    def _watch(self) -> None:
        while True:
            cpu, peak = cpu_seconds(self.process.pid), peak_mb(self.process.pid)
            if cpu:
                self._times.append(time.monotonic())
                self._cpu_seconds.append(cpu)
            self._peak_mb = max(self._peak_mb, peak)
            if self._ended.wait(_LOOK_SECONDS):
                return
