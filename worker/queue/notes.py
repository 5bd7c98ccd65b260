"""The notes that workers leave in the store: their names, and who is there by them."""

from collections.abc import Mapping

from worker.queue.base import Note

LIMIT = "limit"  # the rate limit that was found last, in requests a second, of all workers together
EVENT = "event "  # followed by a worker's name: its last halt or the end of one, which concerns all, as JSON
REFUSAL = "refusal "  # followed by a worker's name: the last refusal that it met, likewise
WORKER = "worker "  # followed by the worker's name: what its flow control is doing, as JSON

# A worker's note that is older has been left by one that is gone, or hangs.
FRESH_SECONDS = 10.0


def at_work(notes: Mapping[str, Note]) -> dict[str, Note]:
    """The notes of the workers that are there now, by the workers' names."""
    return {
        name.removeprefix(WORKER): note
        for name, note in sorted(notes.items())
        if name.startswith(WORKER) and note.age_seconds < FRESH_SECONDS
    }


def limit_in(notes: Mapping[str, Note]) -> float | None:
    """The limit that was found last, in requests a second, of all workers together; None when none is known."""
    try:
        return float(notes[LIMIT].text)
    except (KeyError, ValueError):
        return None
