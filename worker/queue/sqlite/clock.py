"""The queue's time, which never steps within a boot, even if the wall clock is set.

It is the same for all processes of the machine. Times for users, and those that outlive a boot, use the wall clock.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from worker.queue.statements import read_statements

_CLOCK = read_statements(__package__, "clock")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")  # a time namespace shifts the kernel's clocks


class Moment(NamedTuple):
    """The time of an operation by both clocks, in seconds.

    Args:
        queue: the queue's time, for due times and ages.
        unix: the wall clock, for times that users read.
    """

    queue: float
    unix: float

    @property
    def ahead(self) -> float:
        """The wall clock minus the queue's time."""
        return self.unix - self.queue


class Clocks(msgspec.Struct, frozen=True):
    """The clocks of a process.

    Args:
        steady: seconds since the boot, sleep included; the same for all processes.
        unix: Unix time, seconds.
        boot: identifies this boot.
    """

    steady: Callable[[], float]
    unix: Callable[[], float]
    boot: str

    @classmethod
    def of_this_machine(cls) -> "Clocks":
        """Return the machine's clocks; without a steady one, the wall clock takes its place."""
        try:
            boot, offset = _BOOT_ID.read_text().strip(), _boottime_offset()
        except OSError:
            return cls(time.time, time.time, "")
        boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        return cls((lambda: boottime() - offset) if offset else boottime, time.time, boot)


class QueueClock:
    """The clock of one queue object, used in the writer's thread once it is set."""

    __slots__ = ("_ahead", "_clocks")

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._ahead = 0.0  # queue's time minus steady clock

    def __call__(self) -> Moment:
        return Moment(self._clocks.steady() + self._ahead, self._clocks.unix())

    def set_by(self, connection: apsw.Connection) -> None:
        """Adopt the offset that the first process of this boot stored in the file; if there is none, store it.

        Across boots, the queue's time continues by the wall clock.
        """
        ahead = self._agreed(connection)
        if ahead is None:
            connection.execute("BEGIN IMMEDIATE")
            ahead = self._agreed(connection)  # another process may have stored it meanwhile
            if ahead is None:
                ahead = self._clocks.unix() - self._clocks.steady()
                connection.execute(_CLOCK["agree"], {"boot": self._clocks.boot, "ahead": ahead})
                connection.execute(_CLOCK["doubt"])
            connection.execute("COMMIT")
        self._ahead = ahead

    def _agreed(self, connection: apsw.Connection) -> float | None:
        boot, ahead = connection.execute(_CLOCK["known"]).fetchone() or ("", 0.0)
        return ahead if boot == self._clocks.boot else None


def _boottime_offset() -> float:
    """Return the shift of the clock by this process's time namespace."""
    if not _OFFSETS.exists():  # the kernel has no time namespaces
        return 0.0
    for line in _OFFSETS.read_text().splitlines():
        name, seconds, nanoseconds = line.split()
        if name == "boottime":
            return int(seconds) + int(nanoseconds) / 1e9
    return 0.0
