"""Where a worker's time comes from: one clock, handed in from the top."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial


class SteadyClock:
    """Monotonic seconds that also count the time in which the machine slept, told by the wall clock.

    For systems without a clock that runs on meanwhile. A wall clock that is put forward looks the same, which is safe:
    leases are then taken to end sooner.

    Args:
        monotonic: seconds, never going back, standing still while the machine sleeps.
        unix: Unix time, seconds.
    """

    _JUMP_SECONDS = 1.0

    def __init__(self, monotonic: Callable[[], float], unix: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._unix = unix
        self._slept = 0.0
        self._difference = unix() - monotonic()

    def __call__(self) -> float:
        now = self._monotonic()
        difference = self._unix() - now
        if difference - self._difference > self._JUMP_SECONDS:
            self._slept += difference - self._difference
        self._difference = difference
        return now + self._slept


def _monotonic() -> Callable[[], float]:
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return SteadyClock(time.monotonic, time.time)
    return partial(time.clock_gettime, boottime)  # no function of ours: it is asked a dozen times an update


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, for all parts of one worker.

    Args:
        monotonic: seconds, never going back, and going on while the machine sleeps: by it waits, leases, rates and
            retries are reckoned.
        unix: seconds since 1970, for people and for other processes.
    """

    monotonic: Callable[[], float] = field(default_factory=_monotonic)
    unix: Callable[[], float] = time.time
