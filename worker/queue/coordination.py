"""What workers share besides the queue: notes for each other and for later runs, and one rate for all of them."""

from typing import Protocol, Self

import msgspec

from worker.queue.quota import Grant


class Note(msgspec.Struct, frozen=True):
    """A short text that a worker left in the store, for other processes and later runs.

    Args:
        age_seconds: how long ago it was written, by the store's clock. If that was ahead then, and was put back, by how
            much the note is ahead: it is not taken for a new one, and a worker that lives writes its own anew.
    """

    text: str
    age_seconds: float

    @classmethod
    def of(cls, text: str, age_seconds: float) -> Self:
        """Make one of a difference of times, which may be negative."""
        return cls(text, abs(age_seconds))


class Coordination(Protocol):
    """Notes by name, the time, and the quota of the rate that all workers keep together."""

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep a short text under this name, in place of the one before; None removes it."""

    async def read_note(self, name: str) -> Note | None:
        """The note of this name, if there is one."""

    async def read_notes(self) -> dict[str, Note]:
        """All notes by name."""

    async def unix_time(self) -> float:
        """The time by the store's own clock, seconds: leases and waits go by that."""

    async def take_quota(self, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take the right to up to `requests` requests of the common rate, due at most so far ahead of now.

        Raises:
            ValueError: the rate is not a positive number.
        """
