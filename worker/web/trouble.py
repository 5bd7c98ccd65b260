"""Failures of a part, kept to that part, and logged no more often than a person can read."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


class Trouble:
    """Keeps what one part of the web surface raises from everything else.

    The first failure is logged with its trace; those that follow it are not, until the part has worked again.

    Args:
        part: its name in the log.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._failing = False

    def __repr__(self) -> str:
        return f"<Trouble of {self._part} [{'failing' if self._failing else 'none'}]>"

    @contextmanager
    def contained(self) -> Iterator[None]:
        """Try the part; whoever did not get what it makes goes on without."""
        try:
            yield
        except Exception:  # noqa: BLE001 -- a fault of ours, whichever: it costs this part alone
            if not self._failing:
                structlog.get_logger().exception("web.failing", part=self._part)
            self._failing = True
        else:
            if self._failing:
                structlog.get_logger().info("web.works_again", part=self._part)
            self._failing = False


class Seldom:
    """Lets one of each kind be said in a while, whoever causes them, and counts the others.

    Args:
        seconds: how long after one was said the next of its kind is not.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Seldom [{sum(self._unsaid.values())} unsaid]>"

    def unsaid(self, kind: str) -> int | None:
        """How many of this kind were not said before this one; None if this one is not to be said either.

        Args:
            kind: one of few: nothing that somebody sends.
        """
        now = time.monotonic()
        if now - self._said_at.get(kind, -self._seconds) < self._seconds:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return None
        self._said_at[kind] = now
        return self._unsaid.pop(kind, 0)
