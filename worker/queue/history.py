"""The queue's history of the last day, per minute, over all workers and restarts."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

KEPT_MINUTES = 24 * 60


class Sample(msgspec.Struct, frozen=True):
    """The queue's state at one moment.

    Args:
        oldest_seconds: age of the oldest pending change; None when there was none.
        rate_per_second: the target rate of requests of all workers together.
        limit_per_second: the known limit; None if none.
    """

    pending: int
    oldest_seconds: float | None
    rate_per_second: float
    limit_per_second: float | None


class HistoryMinute(msgspec.Struct, frozen=True):
    """One minute.

    Args:
        starts_at: Unix time, seconds, by the store's clock.
        applied, unchanged, dead, superseded, withdrawn: changes, by outcome.
        sample: the last one of the minute; None if none was taken.
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
        """Store this minute's last sample, for a day."""

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes, the current one included, oldest first.

        Raises:
            ValueError: `minutes` is not between 1 and a day.
        """


def every_minute(
    newest: int,
    minutes: int,
    done: Iterable[Sequence[int]],
    samples: Iterable[tuple[int, Sample]],
) -> list[HistoryMinute]:
    """Return all minutes, those without events included, oldest first.

    Args:
        newest: the last minute of Unix time.
        minutes: how many to return.
        done: (minute, applied, unchanged, dead, superseded, withdrawn) of minutes in which changes ended.
        samples: the last of a minute, by minute.
    """
    done_by_minute = {minute: counts for minute, *counts in done}
    sample_by_minute = dict(samples)
    history = []
    for minute in range(newest - minutes + 1, newest + 1):
        counts = done_by_minute.get(minute, ())
        sample = sample_by_minute.get(minute)
        history.append(msgspec.structs.replace(HistoryMinute(minute * 60, *counts), sample=sample))
    return history


def checked(minutes: int) -> int:
    """Return the number of minutes, if it is valid.

    Raises:
        ValueError: it is not between 1 and a day.
    """
    if not 1 <= minutes <= KEPT_MINUTES:
        raise ValueError(f"history is kept for {KEPT_MINUTES} minutes: ask for 1 to as many, not {minutes}")
    return minutes
