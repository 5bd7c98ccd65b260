"""The pause: a note in the store that keeps all workers from starting anything."""

from dataclasses import dataclass

import msgspec

from worker.queue.coordination import Coordination, Note
from worker.queue.letters import LONGEST_AGO_SECONDS
from worker.queue.notes import PAUSE
from worker.queue.text import storable

MAX_PAUSE_CHARACTERS = 500  # of a reason, and of a name
_UNKNOWN = "somebody unknown"


class Pause(msgspec.Struct, frozen=True):
    """Who has paused the queue, and why.

    Args:
        by: as whoever did it says: any text.
        reason: likewise; None where none was given.
        age_seconds: for how long; of a note, at the time when it was written.
    """

    by: str
    reason: str | None = None
    age_seconds: float = 0.0

    @property
    def words(self) -> tuple[str, str | None]:
        """What was said: a pause that says something else is news."""
        return self.by, self.reason

    @property
    def sentence(self) -> str:
        """By whom and why; foreign text, so escape it wherever it is printed."""
        return f"paused by {self.by}: {self.reason}" if self.reason else f"paused by {self.by}, who gave no reason"


@dataclass(frozen=True, slots=True)
class Standstill:
    """A pause that somebody has seen in the store.

    Args:
        since: Unix time, seconds, when the queue was paused.
    """

    by: str
    reason: str | None
    since: float

    @property
    def sentence(self) -> str:
        """By whom and why; foreign text."""
        return Pause(self.by, self.reason).sentence


def pause_of(note: Note | None) -> Pause | None:
    """What the note says; None without one.

    A note that cannot be read, of another release say, is the pause of somebody unknown: that it is there is its word.
    """
    if note is None:
        return None
    try:
        told = msgspec.json.decode(note.text, type=Pause)
    except (msgspec.DecodeError, RecursionError):
        return Pause(_UNKNOWN, None, note.age_seconds)
    # What no clock can have measured has no date that anybody could read.
    age_seconds = min(note.age_seconds + max(0.0, told.age_seconds), LONGEST_AGO_SECONDS)
    by, reason = (text[:MAX_PAUSE_CHARACTERS] for text in (told.by, told.reason or ""))
    return Pause(by or _UNKNOWN, reason or None, age_seconds)


async def read_pause(queue: Coordination) -> Pause | None:
    """Whether the queue is paused, by whom and why.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    return pause_of(await queue.read_note(PAUSE))


async def pause(queue: Coordination, by: str, reason: str | None) -> Pause | None:
    """Pause the queue. Where it is paused already, the new words take the place of those before; its age stays.

    Returns:
        the pause that there was before.

    Raises:
        QueueUnavailable: the store does not answer.
        ValueError: the words are too long.
    """
    if max(len(by), len(reason or "")) > MAX_PAUSE_CHARACTERS:
        raise ValueError(f"a pause has at most {MAX_PAUSE_CHARACTERS} characters of reason, and of a name")
    before = await read_pause(queue)
    # A word that is no text, from a terminal with another encoding say, must not keep anybody from pausing.
    told = Pause(storable(by), storable(reason) or None, before.age_seconds if before else 0.0)
    await queue.write_note(PAUSE, msgspec.json.encode(told).decode())
    return before


async def resume(queue: Coordination) -> Pause | None:
    """Let workers go on.

    Returns:
        the pause that ended; None where the queue was not paused.

    Raises:
        QueueUnavailable: the store does not answer.
    """
    before = await read_pause(queue)
    if before is not None:
        await queue.write_note(PAUSE, None)
    return before
