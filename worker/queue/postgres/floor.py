"""The floor: below it are no due targets but such as were passed over, so that a claim need not look there.

What is gone stays in the index until a vacuum, and as long as any old transaction is open, no vacuum takes it. To look
everywhere is then to read all of that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

# A target may lie below the floor because another claim had it, which came to nothing. So everywhere is looked again,
# with a backlog every minute; without one every second, unless that takes long; and where the server's clock went back.
_RESET_SECONDS = 60.0
_SHORT_RESET_SECONDS = 1.0
# What takes long: the least of the last few times is more than this. It is done in a fiftieth of the time then.
_LONG_SECONDS = 0.05
_TIMES = 3
_SHARE = 0.02
# A target is due no earlier than its transaction has a number, give or take how long that may have waited for a lock.
_SLACK = timedelta(seconds=1)
_REMEMBERED_LOOKS = 600
_BETWEEN_REMEMBERED = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Look:
    """What a claim saw, from the floor on.

    Args:
        oldest: the earliest visible_at of what it took; None when it took nothing.
        is_full: whether it took as many as it was to: else it has seen all that is due.
        at: when that was, by the server's clock.
        number: its transaction's; later ones have greater numbers.
        horizon: transactions from this number on had not ended.
        running: nor had these below it. What such transactions have written was not to be seen.
    """

    oldest: datetime | None
    is_full: bool
    at: datetime
    number: int
    horizon: int
    running: frozenset[int]


class Effort:
    """How often to do what may take long.

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
        """Do it, and note how long it took."""
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
        """Let the next claim look everywhere, maybe on another server."""
        self.reset()
        self._looks: deque[tuple[int, datetime]] = deque(maxlen=_REMEMBERED_LOOKS)
        self._unseen: set[int] = set()
        self._seen_at: datetime | None = None

    def met(self, at: datetime) -> None:
        """Take notice of the server's clock: where it was put back, what has come since may lie below the floor."""
        if self._seen_at is not None and at < self._seen_at - _SLACK:
            self.forget()
        self._seen_at = max(self._seen_at or at, at)

    def is_below(self, floor: datetime | None) -> bool:
        """Whether it has gone down since it was that one: then a look from there on may have been too short."""
        return floor is not None and (self.visible_at is None or self.visible_at < floor)

    def claimed(self, look: Look) -> None:
        """Take notice of a claim."""
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
        if ended:  # this claim may have begun too late for what those have written
            began_at = self._before(min(ended))
            if began_at is None:
                self.reset()
                return
            visible_at = min(visible_at, began_at - _SLACK)
        self.visible_at = visible_at

    def _before(self, number: int) -> datetime | None:
        """A moment at which the transaction had no number yet; None where that was long ago."""
        return next((at for looked, at in reversed(self._looks) if looked < number), None)
