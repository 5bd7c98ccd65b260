"""The pause: a note in the store that stops all workers from starting requests."""

import msgspec

from worker.queue.coordination import Coordination, Note
from worker.queue.letters import LONGEST_AGO_SECONDS
from worker.queue.notes import PAUSE
from worker.queue.text import storable

MAX_PAUSE_CHARACTERS = 500  # for a reason, and for a name
_UNKNOWN = "somebody unknown"


class Pause(msgspec.Struct, frozen=True):
    """Who paused the queue, and why.

    Args:
        by: the name that was given: any text.
        reason: any text; None if none was given.
        age_seconds: for how long; in a note, at the time of writing.
    """

    by: str
    reason: str | None = None
    age_seconds: float = 0.0

    @property
    def words(self) -> tuple[str, str | None]:
        """Return name and reason: a pause with other words is a new event."""
        return self.by, self.reason

    @property
    def sentence(self) -> str:
        """Return by whom and why. It contains foreign text: escape it before printing."""
        return f"paused by {self.by}: {self.reason}" if self.reason else f"paused by {self.by}, who gave no reason"


class Standstill(msgspec.Struct, frozen=True):
    """A pause as a worker has seen it in the store.

    Args:
        since: Unix time, seconds, when the queue was paused.
    """

    by: str
    reason: str | None
    since: float

    @property
    def sentence(self) -> str:
        """Return by whom and why. It contains foreign text."""
        return Pause(self.by, self.reason).sentence


def pause_of(note: Note | None) -> Pause | None:
    """Read a pause from its note; None without a note.

    A malformed note, such as of another release, still is a pause, by an unknown user.
    """
    if note is None:
        return None
    try:
        told = msgspec.json.decode(note.text, type=Pause)
    except (msgspec.DecodeError, RecursionError):
        return Pause(_UNKNOWN, None, note.age_seconds)
    # Bound the age, because dates of larger ones cannot be shown.
    age_seconds = min(note.age_seconds + max(0.0, told.age_seconds), LONGEST_AGO_SECONDS)
    by, reason = (text[:MAX_PAUSE_CHARACTERS] for text in (told.by, told.reason or ""))
    return Pause(by or _UNKNOWN, reason or None, age_seconds)


async def read_pause(queue: Coordination) -> Pause | None:
    """Return the queue's pause; None if it is not paused.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    return pause_of(await queue.read_note(PAUSE))


async def pause(queue: Coordination, by: str, reason: str | None) -> Pause | None:
    """Pause the queue. If it is already paused, replace name and reason, but keep its age.

    Returns:
        The previous pause, if any.

    Raises:
        QueueUnavailable: the store does not answer.
        ValueError: the name or the reason is too long.
    """
    if max(len(by), len(reason or "")) > MAX_PAUSE_CHARACTERS:
        raise ValueError(f"a pause has at most {MAX_PAUSE_CHARACTERS} characters of reason, and of a name")
    before = await read_pause(queue)
    # Text that is not valid Unicode, such as from a terminal, must not prevent a pause.
    told = Pause(storable(by), storable(reason) or None, before.age_seconds if before else 0.0)
    await queue.write_note(PAUSE, msgspec.json.encode(told).decode())
    return before


async def resume(queue: Coordination) -> Pause | None:
    """End the pause.

    Returns:
        The pause that ended; None if the queue was not paused.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    before = await read_pause(queue)
    if before is not None:
        await queue.write_note(PAUSE, None)
    return before
