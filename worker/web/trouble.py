"""Contain the failures of one part, and limit how often they are logged."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


class Trouble:
    """Contains the exceptions of one part of the web server.

    Only the first failure is logged, with its trace, until the part has worked again.

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
        """Run the part; if it raises, the caller goes on without its result."""
        try:
            yield
        except Exception:  # noqa: BLE001 -- any fault of ours must cost only this part
            if not self._failing:
                structlog.get_logger().exception("web.failing", part=self._part)
            self._failing = True
        else:
            if self._failing:
                structlog.get_logger().info("web.works_again", part=self._part)
            self._failing = False


class Seldom:
    """Lets one log line of each kind through per interval, and counts the others.

    Args:
        seconds: the interval.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Seldom [{sum(self._unsaid.values())} unsaid]>"

    def unsaid(self, kind: str) -> int | None:
        """Return how many lines of this kind were suppressed before this one; None to suppress this one, too.

        Args:
            kind: one of a few constants; never text from a caller.
        """
        now = time.monotonic()
        if now - self._said_at.get(kind, -self._seconds) < self._seconds:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return None
        self._said_at[kind] = now
        return self._unsaid.pop(kind, 0)
