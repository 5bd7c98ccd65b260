"""The pause of a queue as commands show it."""

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
    """Who has paused the queue.

    Args:
        by: the name that was given, of a user and a machine as a rule.
        reason: null where none was given.
        since: when.
    """

    by: str
    reason: str | None
    since: str

    @classmethod
    def of(cls, standstill: Standstill | None) -> Self | None:
        """As a worker has heard of it."""
        if standstill is None:
            return None
        return cls(standstill.by, standstill.reason, time_text(standstill.since))

    @classmethod
    def told(cls, pause: Pause | None) -> Self | None:
        """As the store has it now."""
        if pause is None:
            return None
        return cls(pause.by, pause.reason, time_text(time.time() - pause.age_seconds))

    @property
    def sentence(self) -> str:
        """By whom, since when and why; foreign text, which whoever prints it escapes."""
        return f"paused by {self.by} since {self.since}{f': {self.reason}' if self.reason else ', who gave no reason'}"


def lasting(pause: Pause) -> str:
    """By whom, for how long and why, on one line, fit for any terminal."""
    return f"{printable(pause.sentence)} ({age_text(pause.age_seconds)} ago)"


def who() -> str:
    """The user and the machine; in a container the user may have a number alone."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
