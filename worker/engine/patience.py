"""How long the engine waits itself before it leaves the wait to the queue, and before it asks a store again."""

from collections.abc import Iterator

# The worker makes shorter waits itself, and keeps the lease. It leaves longer ones to the queue.
SHORT_WAIT_SECONDS = 5.0

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


def store_pauses() -> Iterator[float]:
    """Yield, without end, the seconds to wait before each further call to a store that is away: they double."""
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        yield pause_seconds
        pause_seconds = min(2.0 * pause_seconds, _LONGEST_PAUSE_SECONDS)
