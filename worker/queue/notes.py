"""The workers' notes in the store: their names, and which workers are active."""

from collections.abc import Mapping

import msgspec

from worker.queue.coordination import Note


class Limit(msgspec.Struct, frozen=True):
    """The service's rate limit, for all workers together.

    Args:
        per_second: requests.
        age_seconds: how long ago a refusal showed it; in a note, at the time of writing.
    """

    per_second: float
    age_seconds: float


LIMIT = "limit"  # the last rate limit found, as `Limit` in JSON
EVENT = "event "  # plus a worker's name: its last halt or end of a halt, which concerns all workers, as JSON
REFUSAL = "refusal "  # plus a worker's name: its last refusal, as JSON
PAUSE = "pause"  # no worker may start anything: by whom and why, as JSON; see `worker.queue.pausing`
WORKER = "worker "  # plus a worker's name: the state of its flow control, as JSON

# A worker rewrites its note at least this often; a note older than FRESH_SECONDS belongs to a worker that has died or
# hangs.
REFRESH_SECONDS = 12.0
FRESH_SECONDS = 30.0


def at_work(notes: Mapping[str, Note]) -> dict[str, Note]:
    """Return the notes of active workers, by the workers' names."""
    return {
        name.removeprefix(WORKER): note
        for name, note in sorted(notes.items())
        if name.startswith(WORKER) and note.age_seconds < FRESH_SECONDS
    }


def limit_in(notes: Mapping[str, Note]) -> Limit | None:
    """Return the last limit found, with its current age; None if none is known."""
    note = notes.get(LIMIT)
    if note is None:
        return None
    try:
        told = msgspec.json.decode(note.text, type=Limit)
    except (msgspec.DecodeError, RecursionError):
        return None
    return Limit(told.per_second, told.age_seconds + note.age_seconds)
