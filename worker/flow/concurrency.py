"""How many requests at once: a cap that follows rate and latency, and a slow start."""

import math

from worker.flow.tuning import TUNING

_SAMPLE_SIZE = 128
_RANK_EVERY = 16  # latencies, once there are so many, since the sort takes most of the time
_RANK = 0.95
_MIN_SLOTS = 16  # so that some requests that hang do not stop the others
_LOOK_SECONDS = 0.05  # at most until the window is looked at again, which grows ever faster at first


class LatencySample:
    """The latest 128 latencies.

    `held_seconds` is how long a request may hold a slot: the 95th percentile, or the mean if that is more because a few
    requests hang. It is None before the first latency, and up to 15 latencies old.
    """

    __slots__ = ("_latencies", "_seen", "held_seconds")

    def __init__(self) -> None:
        self._latencies: list[float] = []
        self._seen = 0
        self.held_seconds: float | None = None

    def add(self, seconds: float) -> None:
        """Put a latency in the place of the oldest."""
        if self._seen < _SAMPLE_SIZE:
            self._latencies.append(seconds)
        else:
            self._latencies[self._seen % _SAMPLE_SIZE] = seconds
        self._seen += 1
        if self._seen <= _RANK_EVERY or self._seen % _RANK_EVERY == 0:
            ranked = sorted(self._latencies)
            rank = math.ceil(_RANK * len(ranked)) - 1
            self.held_seconds = max(ranked[rank], math.fsum(ranked) / len(ranked))


class Concurrency:
    """The number of requests that may run at once: `slots`.

    It is the least of three: what is configured; what the rate needs at the latency that is measured, by Little's law;
    and the window of a slow start. With time, the window grows so that the rate does, ever more slowly: what is under
    way when the limit is met is wasted. With each answer it grows by a part of a request, or by one where the limit is
    known. It grows only while at least half of it is used.

    Args:
        configured: the upper bound.
        now: the time, in seconds.

    Raises:
        ValueError: the bound is less than one.
    """

    __slots__ = ("_began_at", "_configured", "_grown_at", "_growth", "_needed", "_sample", "_window", "slots")

    def __init__(self, configured: int, now: float) -> None:
        if configured < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {configured}")
        self._configured = configured
        self._needed = configured
        self._sample = LatencySample()
        self.slow_start(now)

    def slow_start(self, now: float) -> None:
        """Begin again with one at a time."""
        self._window = 1.0
        self._growth = 1.0  # a second
        self._began_at = self._grown_at = now
        self._update()

    def answered(self, now: float, latency_seconds: float, *, per_second: float, in_flight: int) -> None:
        """Learn from an answer that was no refusal.

        Args:
            now: the time.
            latency_seconds: of this answer.
            per_second: the rate that is aimed at; infinite while no limit is known.
            in_flight: requests under way when it came, this one included.
        """
        self._sample.add(latency_seconds)
        is_searching = math.isinf(per_second)
        if self._window >= self._configured == self._needed and is_searching:
            self._grown_at = now
            return  # all may run that are configured, and nothing that was learnt changes it
        if in_flight * 2 >= self._window:
            self._window += TUNING.ramp_per_answer if is_searching else 1.0
            self._grow(now)
        self._grown_at = now
        self._needed = self._slots_needed(per_second)
        self._update()

    def held(self, seconds: float) -> None:
        """Learn how long a failed request held its slot."""
        self._sample.add(seconds)

    def seconds_until_growth(self, now: float, in_flight: int) -> float:
        """When time alone will let one more than `in_flight` run.

        Returns:
            0 when there is room now; infinity when only an answer will make room.
        """
        if in_flight < self.slots:
            return 0.0
        if self.slots >= min(self._configured, self._needed):
            return math.inf
        self._grow(now)
        self._update()
        if in_flight < self.slots:
            return 0.0
        return min((in_flight + 1 - self._window) / self._growth + 1e-6, _LOOK_SECONDS)

    def _grow(self, now: float) -> None:
        """Let the window grow: as many requests are under way as start in a latency.

        The rate, so long after the slow start began, is ``ramp * age / sqrt(age + 1)``.
        """
        age, held_seconds = now - self._began_at, self._sample.held_seconds
        before = 0.0 if held_seconds is None else max(0.0, age - held_seconds)
        self._growth = 1.0 + TUNING.ramp * (age / math.sqrt(age + 1.0) - before / math.sqrt(before + 1.0))
        self._window = min(self._configured, self._window + min(now - self._grown_at, 1.0) * self._growth)
        self._grown_at = now

    def _slots_needed(self, per_second: float) -> int:
        held_seconds = self._sample.held_seconds
        if held_seconds is None or math.isinf(per_second):
            return self._configured
        return max(_MIN_SLOTS, math.ceil(TUNING.headroom * per_second * held_seconds))

    def _update(self) -> None:
        self.slots = min(self._configured, self._needed, int(self._window))
