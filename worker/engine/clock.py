"""The clock of all parts of a worker."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial


class SteadyClock:
    """Monotonic seconds that include the time in which the machine slept, found by the wall clock.

    For systems without a clock that goes on during sleep. A wall clock that is set forward looks like sleep. That is
    safe: leases then seem to end sooner.

    Args:
        monotonic: seconds that never go back, and stand still while the machine sleeps.
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
    return partial(time.clock_gettime, boottime)  # a C function: each update reads the clock a dozen times


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of one worker.

    Args:
        monotonic: seconds for waits, leases, rates and retries. It never goes back, and goes on during sleep.
        unix: Unix time in seconds, for people and for other processes.
    """

    monotonic: Callable[[], float] = field(default_factory=_monotonic)
    unix: Callable[[], float] = time.time
