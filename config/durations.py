"""Parse and format durations: seconds, or a number with a unit."""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")


def duration_seconds(text: object) -> float:
    """Parse a duration to seconds: ``90``, ``250ms``, ``30s``, ``15m``, ``2h`` or ``1d``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a duration: seconds, or such as 250ms, 30s, 15m, 2h, 1d")
        return float(match[1]) * _UNITS[match[2] or "s"]
    if not isinstance(text, int | float) or isinstance(text, bool) or not math.isfinite(text) or text < 0:
        raise ValueError("must be a duration: seconds, or such as 250ms, 30s, 15m, 2h, 1d")
    return float(text)


def duration_text(seconds: float) -> str:
    """Format a duration in the largest unit that gives a whole number: ``15m`` for 900."""
    for unit, size in reversed(_UNITS.items()):
        count = seconds / size
        if seconds and math.isclose(count, round(count)) and round(count):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"
