"""Whether the machine was quiet: the load on its cores during a measurement, besides the benchmark."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# Above this share of the machine's cores, figures are marked as disturbed.
DISTURBED = 0.03


@dataclass(frozen=True, slots=True)
class Noise:
    """The load of others, as shares of all cores.

    Args:
        load: processes that do not belong to the benchmark.
        steal: the host's other guests.
    """

    load: float
    steal: float

    @property
    def is_much(self) -> bool:
        """Whether this may have falsified the figures."""
        return self.load + self.steal > DISTURBED

    def __str__(self) -> str:
        quiet = "quiet" if not self.is_much else "NOT QUIET: measure again"
        return f"others took {self.load:.1%} of the cores, the host's other guests {self.steal:.1%} ({quiet})"


@dataclass(frozen=True, slots=True)
class Clocks:
    """CPU time until now, in seconds.

    Args:
        busy: of all cores together, by all processes.
        steal, idle: of all cores together.
        ours: of this process and its descendants, ended ones included.
    """

    busy: float
    steal: float
    idle: float
    ours: float

    @classmethod
    def now(cls) -> Self | None:
        """Read the clocks; None if the system has none of this kind."""
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        except FileNotFoundError:
            return None
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, idle, waiting, interrupts, soft, steal = (int(each) / tick for each in first)
        return cls(user + nice + system + interrupts + soft, steal, idle + waiting, _ours())

    def until(self, later: Self) -> Noise:
        """The load between the two."""
        busy, steal, idle = later.busy - self.busy, later.steal - self.steal, later.idle - self.idle
        whole = max(busy + steal + idle, 1e-9)
        return Noise(max(0.0, busy - (later.ours - self.ours)) / whole, steal / whole)


def _ours() -> float:
    """CPU time of this process and all its descendants, in seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        parents[int(folder.name)] = int(fields[1]), sum(int(each) for each in fields[11:15]) / tick
    for process_id, (_, seconds) in parents.items():
        if process_id != os.getpid() and _descends(process_id, parents):
            total += seconds
    return total


def _descends(process_id: int, parents: dict[int, tuple[int, float]]) -> bool:
    seen = set[int]()
    while process_id in parents and process_id not in seen:
        seen.add(process_id)
        process_id = parents[process_id][0]
        if process_id == os.getpid():
            return True
    return False
