"""How many requests at once: a cap that follows rate and latency, and a slow start."""

import math

from worker.flow.tuning import TUNING

_MIN_SLOTS = 16  # so that some requests that hang do not stop the others
_LOOK_SECONDS = 0.05  # at most until the window is looked at again, which grows ever faster at first


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

    __slots__ = (
        "_began_at",
        "_configured",
        "_deviation_seconds",
        "_grown_at",
        "_growth",
        "_latencies",
        "_latency_seconds",
        "_needed",
        "_window",
        "slots",
    )

    def __init__(self, configured: int, now: float) -> None:
        if configured < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {configured}")
        self._configured = configured
        self._needed = configured
        self._latencies = 0  # so many are known
        self._latency_seconds = 0.0  # their mean; the latest count most
        self._deviation_seconds = 0.0  # from that mean, on average
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
        self.held(latency_seconds)
        is_searching = math.isinf(per_second)
        if self._window >= self._configured == self._needed and is_searching:
            self._grown_at = now
            return  # all may run that are configured, and nothing that was learnt changes it
        if in_flight * 2 >= self._window:
            self._window += TUNING.ramp_per_answer if is_searching else 1.0
            self._grow(now)
        self._grown_at = now
        if is_searching:
            self._needed = self._configured
        else:
            self._needed = max(_MIN_SLOTS, math.ceil(TUNING.headroom * per_second * self._held_seconds()))
        self._update()

    def held(self, seconds: float) -> None:
        """Learn how long a request held its slot."""
        self._latencies += 1
        gain = max(TUNING.latency_gain, 1.0 / self._latencies)
        if self._latencies == 1:
            self._latency_seconds = seconds
        off_seconds = seconds - self._latency_seconds
        self._latency_seconds += gain * off_seconds
        self._deviation_seconds += gain * (abs(off_seconds) - self._deviation_seconds)

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

    def _held_seconds(self) -> float:
        """How long a request may hold its slot: about the 95th percentile, or more where a few hang."""
        return self._latency_seconds + TUNING.latency_deviations * self._deviation_seconds

    def _grow(self, now: float) -> None:
        """Let the window grow: as many requests are under way as start in a latency.

        The rate, so long after the slow start began, is ``ramp * age / sqrt(age + 1)``.
        """
        age = now - self._began_at
        before = max(0.0, age - self._held_seconds()) if self._latencies else 0.0
        self._growth = 1.0 + TUNING.ramp * (age / math.sqrt(age + 1.0) - before / math.sqrt(before + 1.0))
        self._window = min(self._configured, self._window + min(now - self._grown_at, 1.0) * self._growth)
        self._grown_at = now

    def _update(self) -> None:
        self.slots = min(self._configured, self._needed, int(self._window))
