"""Random delays, and their text form."""

import math
import re
from dataclasses import dataclass
from random import Random

from worker.flags import BadValue

DURATIONS = """\
durations: seconds, or with a unit: 250ms, 3s, 5m. A DELAY is one of
  3s        always the same
  1s-6s     any time between, all equally likely
  3.6s~0.3  log-normal: the median, and the standard deviation of the logarithm
"""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}


@dataclass(frozen=True, slots=True)
class Delay:
    """A delay, drawn for each use: fixed, uniform or log-normal.

    Args:
        seconds: the delay; the minimum with `up_to_seconds`, the median with `spread`.
        up_to_seconds: the maximum of a uniform delay.
        spread: standard deviation of the logarithm; with 0.3, nine in ten lie between 0.61 and 1.64 medians.

    Raises:
        BadValue: a figure is negative or not finite, the range is upside down, or both forms are mixed.
    """

    seconds: float = 0.0
    up_to_seconds: float | None = None
    spread: float = 0.0

    def __post_init__(self) -> None:
        not_negative("seconds", self.seconds)
        not_negative("spread", self.spread)
        if self.up_to_seconds is not None:
            not_negative("up_to_seconds", self.up_to_seconds)
            if self.up_to_seconds < self.seconds:
                raise BadValue("up_to_seconds", "must not be less than seconds")
            if self.spread:
                raise BadValue("spread", "does not go with up_to_seconds: a delay has one of them, not both")

    def draw(self, random: Random) -> float:
        """Draw one delay, in seconds."""
        if self.up_to_seconds is not None:
            return random.uniform(self.seconds, self.up_to_seconds)
        if self.spread:
            return self.seconds * random.lognormvariate(0.0, self.spread)
        return self.seconds


def draw_seconds(delay: Delay | float, random: Random) -> float:
    """Draw one delay, in seconds."""
    return delay.draw(random) if isinstance(delay, Delay) else delay


def not_negative(name: str, value: float) -> None:
    """Raise BadValue if the field's value is below 0 or not finite."""
    if not (value >= 0 and math.isfinite(value)):
        raise BadValue(name, f"must be 0 or more, not {value}")


def delay_of(text: str) -> Delay:
    """Parse a delay; see `DURATIONS`."""
    median, tilde, spread = text.partition("~")
    if tilde:
        return Delay(duration_seconds(median), spread=number(spread))
    least, dash, most = text.partition("-")
    if not dash:
        return Delay(duration_seconds(least))
    try:
        return Delay(duration_seconds(least), up_to_seconds=duration_seconds(most))
    except BadValue:
        raise ValueError(f"{text!r}: the second duration must not be less than the first") from None


def duration_seconds(text: str) -> float:
    """Parse a duration; see `DURATIONS`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration, such as 250ms, 3s or 5m")
    return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]


def duration_text(seconds: float) -> str:
    """Format a short duration."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1_000:g}ms"


def number(text: str) -> float:
    """Parse a number of 0 or more."""
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise ValueError(f"{text!r} is no number of 0 or more")
    return float(text)


def count(text: str) -> int:
    """A whole number of 0 or more."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def share(text: str) -> float:
    """A share of all, from 0 to 1, such as 0.01 or 1%."""
    return number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
