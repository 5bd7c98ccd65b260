"""A queue's pause, as commands show it."""

import getpass
import os
import socket
import time
from dataclasses import dataclass
from typing import Self

from worker.cli.output import age_text, time_text
from worker.queue import Pause, Standstill
from worker.terminal import printable


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause of the queue.

    Args:
        by: who paused it, usually user and machine.
        reason: null if none was given.
        since: when.
    """

    by: str
    reason: str | None
    since: str

    @classmethod
    def of(cls, standstill: Standstill | None) -> Self | None:
        """Convert the pause as a worker knows it."""
        if standstill is None:
            return None
        return cls(standstill.by, standstill.reason, time_text(standstill.since))

    @classmethod
    def told(cls, pause: Pause | None) -> Self | None:
        """Convert the pause as the store has it."""
        if pause is None:
            return None
        return cls(pause.by, pause.reason, time_text(time.time() - pause.age_seconds))

    @property
    def sentence(self) -> str:
        """Return by whom, since when and why. It contains foreign text: escape it before printing."""
        return f"paused by {self.by} since {self.since}{f': {self.reason}' if self.reason else ', who gave no reason'}"


def lasting(pause: Pause) -> str:
    """Return by whom, for how long and why, on one line, safe for any terminal."""
    return f"{printable(pause.sentence)} ({age_text(pause.age_seconds)} ago)"


def who() -> str:
    """Return the user and the machine; in a container the user may have only a number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
