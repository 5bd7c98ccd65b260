"""The floor: a claim looks for due targets from there on, because below it there are none, except passed-over ones.

Deleted rows stay in the index until a vacuum, and while any old transaction is open, no vacuum removes them. A look
everywhere reads all of them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

# A target may be below the floor because another claim held it, and failed. So a claim looks everywhere from time to
# time: with a backlog every minute, without one every second unless that is slow, and after the server's clock was set
# back.
_RESET_SECONDS = 60.0
_SHORT_RESET_SECONDS = 1.0
# A look is slow if the fastest of the last three took longer than this. Slow looks take a fiftieth of the time.
_LONG_SECONDS = 0.05
_TIMES = 3
_SHARE = 0.02
# A target is due no earlier than its transaction got its number, except for the time that it waited for a lock.
_SLACK = timedelta(seconds=1)
_REMEMBERED_LOOKS = 600
_BETWEEN_REMEMBERED = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Look:
    """What a claim saw, from the floor on.

    Args:
        oldest: the earliest visible_at among the targets it took; None if it took none.
        is_full: whether it took as many as it was allowed to. Otherwise it saw all due targets.
        at: the time by the server's clock.
        number: of its transaction; later ones have greater numbers.
        horizon: transactions from this number on had not ended.
        running: transactions below the horizon that had not ended. The claim did not see what any of these wrote.
    """

    oldest: datetime | None
    is_full: bool
    at: datetime
    number: int
    horizon: int
    running: frozenset[int]


class Effort:
    """Limits how often to do something that may be slow.

    Args:
        monotonic: seconds.
    """

    __slots__ = ("_ended_at", "_monotonic", "_seconds")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seconds: deque[float] = deque(maxlen=_TIMES)
        self._ended_at = 0.0

    @contextmanager
    def made(self) -> Iterator[None]:
        """A context that times its body."""
        started_at = self._monotonic()
        yield
        self._ended_at = self._monotonic()
        self._seconds.append(self._ended_at - started_at)

    @property
    def is_affordable(self) -> bool:
        """Whether it may be done now."""
        seconds = min(self._seconds) if len(self._seconds) == _TIMES else 0.0
        return seconds < _LONG_SECONDS or self._monotonic() - self._ended_at >= seconds / _SHARE


class Floor:
    """Where the next claim begins to look.

    Args:
        monotonic: seconds.
    """

    __slots__ = ("_looks", "_monotonic", "_reset_at", "_seen_at", "_unseen", "everywhere", "visible_at")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.everywhere = Effort(monotonic)
        self.forget()

    def __repr__(self) -> str:
        return f"<Floor {self.visible_at or 'none'}>"

    def reset(self) -> None:
        """Let the next claim look everywhere."""
        self.visible_at: datetime | None = None
        self._reset_at = self._monotonic()

    def forget(self) -> None:
        """Let the next claim look everywhere, possibly on another server."""
        self.reset()
        self._looks: deque[tuple[int, datetime]] = deque(maxlen=_REMEMBERED_LOOKS)
        self._unseen: set[int] = set()
        self._seen_at: datetime | None = None

    def met(self, at: datetime) -> None:
        """Note the server's clock. If it was set back, newer targets may be below the floor."""
        if self._seen_at is not None and at < self._seen_at - _SLACK:
            self.forget()
        self._seen_at = max(self._seen_at or at, at)

    def is_below(self, floor: datetime | None) -> bool:
        """Whether the floor is lower now than this one, so that a look from there on was too short."""
        return floor is not None and (self.visible_at is None or self.visible_at < floor)

    def claimed(self, look: Look) -> None:
        """Note what a claim saw, and move the floor."""
        self.met(look.at)
        ended = {number for number in self._unseen if number < look.horizon and number not in look.running}
        self._unseen = (self._unseen - ended) | look.running | set(range(look.horizon, look.number))
        if not self._looks or look.at - self._looks[-1][1] >= _BETWEEN_REMEMBERED:
            self._looks.append((look.number, look.at))
        if look.is_full:
            must_reset = self._monotonic() - self._reset_at >= _RESET_SECONDS
        else:
            must_reset = self._monotonic() - self._reset_at >= _SHORT_RESET_SECONDS and self.everywhere.is_affordable
        if must_reset:
            self.reset()
            return
        visible_at = look.at - _SLACK
        if look.is_full and look.oldest is not None:
            visible_at = min(visible_at, look.oldest)
        if ended:  # this claim may not have seen what those have written
            began_at = self._before(min(ended))
            if began_at is None:
                self.reset()
                return
            visible_at = min(visible_at, began_at - _SLACK)
        self.visible_at = visible_at

    def _before(self, number: int) -> datetime | None:
        """A time at which the transaction had no number yet; None if that was long ago."""
        return next((at for looked, at in reversed(self._looks) if looked < number), None)
