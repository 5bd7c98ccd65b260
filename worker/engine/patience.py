"""How long the engine waits before it leaves something to the queue, or asks a store again."""

from collections.abc import Iterator

# Waits of up to so many seconds happen in the worker, with the lease held; longer ones are the queue's.
SHORT_WAIT_SECONDS = 5.0

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


def store_pauses() -> Iterator[float]:
    """Seconds to wait before each further call to a store that is away: twice as long each time, without an end."""
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        yield pause_seconds
        pause_seconds = min(2.0 * pause_seconds, _LONGEST_PAUSE_SECONDS)
