"""What a queue in memory remembers of each minute."""

from typing import TypeVar

from worker.queue.history import KEPT_MINUTES, HistoryMinute, Sample, checked, every_minute

T = TypeVar("T")


class Minutes:
    """What ended in each minute of Unix time, and the last sample of it."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[int, ...]] = {}  # applied, unchanged, dead, superseded, withdrawn
        self._samples: dict[int, Sample] = {}

    def count(self, minute: int, ends: tuple[int, int, int, int], withdrawn: int = 0) -> None:
        """Add ended changes: applied, unchanged, dead and superseded, and withdrawn."""
        before = self._done.get(minute, (0, 0, 0, 0, 0))
        self._done[minute] = tuple(map(sum, zip(before, (*ends, withdrawn), strict=True)))
        _forget(self._done, minute)

    def sample(self, minute: int, sample: Sample) -> None:
        """Keep the sample instead of an earlier one of this minute."""
        self._samples[minute] = sample
        _forget(self._samples, minute)

    def done_since(self, minute: int) -> int:
        """Return how many changes ended from this minute on, without the withdrawn ones."""
        return sum(sum(done[:4]) for each, done in self._done.items() if each >= minute)

    def history(self, minute: int, minutes: int) -> list[HistoryMinute]:
        """Return the last minutes up to this one."""
        done = [(each, *counts) for each, counts in self._done.items()]
        return every_minute(minute, checked(minutes), done, self._samples.items())


def _forget(by_minute: dict[int, T], minute: int) -> None:
    """Delete minutes older than a day."""
    for earlier in [each for each in by_minute if each < minute - KEPT_MINUTES]:
        del by_minute[earlier]
