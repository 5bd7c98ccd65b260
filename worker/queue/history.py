"""What the queue remembers of its last day, minute by minute, over all workers and all restarts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

KEPT_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at one moment.

    Args:
        oldest_seconds: age of the oldest pending change; None when there was none.
        rate_per_second: requests that all workers aimed at together.
        limit_per_second: the limit that was known; None when none was.
    """

    pending: int
    oldest_seconds: float | None
    rate_per_second: float
    limit_per_second: float | None


@dataclass(frozen=True, slots=True)
class HistoryMinute:
    """One minute.

    Args:
        starts_at: Unix time, seconds, by the store's clock.
        applied, unchanged, dead, superseded, withdrawn: changes that ended so.
        sample: the last one of the minute; None when nobody took one.
    """

    starts_at: int
    applied: int = 0
    unchanged: int = 0
    dead: int = 0
    superseded: int = 0
    withdrawn: int = 0
    sample: Sample | None = None


class History(Protocol):
    """A day's time series."""

    async def record_sample(self, sample: Sample) -> None:
        """Keep how things stand as this minute's last sample, for a day."""

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """The last minutes, the one that runs included, oldest first.

        Raises:
            ValueError: more than a day of them, or none, was asked for.
        """


def every_minute(
    newest: int,
    minutes: int,
    done: Iterable[Sequence[int]],
    samples: Iterable[tuple[int, Sample]],
) -> list[HistoryMinute]:
    """Give each minute its place, those without news included, oldest first.

    Args:
        newest: the last minute of Unix time.
        minutes: how many to give.
        done: (minute, applied, unchanged, dead, superseded, withdrawn) of minutes in which changes ended.
        samples: the last of a minute, by minute.
    """
    done_by_minute = {minute: counts for minute, *counts in done}
    sample_by_minute = dict(samples)
    history = []
    for minute in range(newest - minutes + 1, newest + 1):
        counts = done_by_minute.get(minute, ())
        sample = sample_by_minute.get(minute)
        history.append(replace(HistoryMinute(minute * 60, *counts), sample=sample))
    return history


def checked(minutes: int) -> int:
    """Give back a number of minutes that can be asked for.

    Raises:
        ValueError: it is not between 1 and a day.
    """
    if not 1 <= minutes <= KEPT_MINUTES:
        raise ValueError(f"history is kept for {KEPT_MINUTES} minutes: ask for 1 to as many, not {minutes}")
    return minutes
