"""The queue's time, which never steps within a boot, whatever is done to the clock on the wall.

It is the same to all processes of the machine. What people read, and what outlives a boot, goes by the wall clock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw

from worker.queue.statements import read_statements

_CLOCK = read_statements(__package__, "clock")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OFFSETS = Path("/proc/self/timens_offsets")  # of a time namespace, whose clocks are those of its kernel, moved


class Moment(NamedTuple):
    """When something is done, by both clocks; seconds.

    Args:
        queue: by the queue's time: for what is due and how old things are.
        unix: by the clock on the wall: for what people read.
    """

    queue: float
    unix: float

    @property
    def ahead(self) -> float:
        """What makes of the queue's time that of the clock on the wall."""
        return self.unix - self.queue


@dataclass(frozen=True, slots=True)
class Clocks:
    """What a process has the time from.

    Args:
        steady: seconds since the boot, going on while the machine sleeps; all processes of the boot agree on it.
        unix: Unix time, seconds.
        boot: tells this boot from all others.
    """

    steady: Callable[[], float]
    unix: Callable[[], float]
    boot: str

    @classmethod
    def of_this_machine(cls) -> "Clocks":
        """Those that there are; where none is steady, that is the clock on the wall."""
        try:
            boot, offset = _BOOT_ID.read_text().strip(), _boottime_offset()
        except OSError:
            return cls(time.time, time.time, "")
        boottime = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        return cls((lambda: boottime() - offset) if offset else boottime, time.time, boot)


class QueueClock:
    """Tells the time to one queue object, in the writer's thread, once it is set."""

    __slots__ = ("_ahead", "_clocks")

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._ahead = 0.0  # what makes of the steady clock the queue's time

    def __call__(self) -> Moment:
        return Moment(self._clocks.steady() + self._ahead, self._clocks.unix())

    def set_by(self, connection: apsw.Connection) -> None:
        """Go by what the first process that opened this file in this boot has said; where nobody has, say it.

        From one boot to the next, the queue's time goes on as the clock on the wall says.
        """
        ahead = self._agreed(connection)
        if ahead is None:
            connection.execute("BEGIN IMMEDIATE")
            ahead = self._agreed(connection)  # another process may have been faster
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
    """By how much this process's time namespace has moved the clock."""
    if not _OFFSETS.exists():  # a kernel without such namespaces
        return 0.0
    for line in _OFFSETS.read_text().splitlines():
        name, seconds, nanoseconds = line.split()
        if name == "boottime":
            return int(seconds) + int(nanoseconds) / 1e9
    return 0.0
