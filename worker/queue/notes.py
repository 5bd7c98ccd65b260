"""The notes that workers leave in the store: their names, and who is there by them."""

from collections.abc import Mapping

import msgspec

from worker.queue.coordination import Note


class Limit(msgspec.Struct, frozen=True):
    """The service's rate limit, of all workers together.

    Args:
        per_second: requests.
        age_seconds: how long ago a refusal showed it; of a note, when that was written.
    """

    per_second: float
    age_seconds: float


LIMIT = "limit"  # the rate limit that was found last, as `Limit` in JSON
EVENT = "event "  # followed by a worker's name: its last halt or the end of one, which concerns all, as JSON
REFUSAL = "refusal "  # followed by a worker's name: the last refusal that it met, likewise
PAUSE = "pause"  # no worker is to start anything: by whom and why, as JSON; see `worker.queue.pausing`
WORKER = "worker "  # followed by the worker's name: what its flow control is doing, as JSON

# A worker writes its note anew at least so often; one that is older than FRESH_SECONDS was left by a worker that is
# gone, or hangs.
REFRESH_SECONDS = 12.0
FRESH_SECONDS = 30.0


def at_work(notes: Mapping[str, Note]) -> dict[str, Note]:
    """The notes of the workers that are there now, by the workers' names."""
    return {
        name.removeprefix(WORKER): note
        for name, note in sorted(notes.items())
        if name.startswith(WORKER) and note.age_seconds < FRESH_SECONDS
    }


def limit_in(notes: Mapping[str, Note]) -> Limit | None:
    """The limit that was found last, with the age that it has now; None when none is known."""
    note = notes.get(LIMIT)
    if note is None:
        return None
    try:
        told = msgspec.json.decode(note.text, type=Limit)
    except (msgspec.DecodeError, RecursionError):
        return None
    return Limit(told.per_second, told.age_seconds + note.age_seconds)
