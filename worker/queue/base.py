"""The durable queue's contract: what every backend promises, and the types that cross it.

A *target* is a completion that has pending changes. Its ``visible_at`` is due time, retry time and lease deadline in
one: a claim takes the oldest visible targets, and an expired lease is a target that is visible again. Every claim
carries a new lease number, the fencing token that each later word about it has to match.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, get_args

import msgspec

from worker.changes import MetadataChange
from worker.queue.history import HistoryMinute, Sample
from worker.queue.permits import Grant

Reason = Literal["invalid", "rejected", "not_found", "too_many_keys", "not_persisted", "attempts_exhausted"]
REASONS: tuple[Reason, ...] = get_args(Reason)

MAX_CHANGES_PER_CLAIM = 1_000
RECENT_MINUTES = 5


class QueueError(Exception):
    """The store did not do what was asked; the message is one sentence for the person who runs it."""


class QueueUnavailable(QueueError):
    """The store is away, busy, full or too slow. Nothing was changed; the same call may succeed later."""


class QueueUnwritable(QueueUnavailable):
    """The store takes nothing in: its disk is full, or writing to it fails. Somebody has to see to it."""


class QueueUnusable(QueueError):
    """Waiting will not help: a bad URL, no metasync queue, a newer schema, a place that cannot be written."""


class QueuedChange(msgspec.Struct, frozen=True, array_like=True):  # made in a fifth of a frozen dataclass's time
    """A stored change, as it lies in the store: not validated again yet. As JSON it is the array of its fields.

    Args:
        number: its place in the queue's order, never used twice.
        metadata: JSON text of an object.
        enqueued_at: Unix time, seconds, by the store's clock.
    """

    number: int
    completion_id: str
    change_id: str | None
    mode: str
    metadata: str
    enqueued_at: float


class Claim(msgspec.Struct, frozen=True):
    """The right to work on one completion until the lease runs out.

    Args:
        lease: the fencing token.
        attempts: failed attempts that the target has behind it.
        changes: its pending changes, oldest first, at most `MAX_CHANGES_PER_CLAIM`; never empty.
        age_seconds: how long ago the oldest of them was enqueued, by the store's clock, at the time of the claim.
    """

    completion_id: str
    lease: int
    attempts: int
    changes: tuple[QueuedChange, ...]
    age_seconds: float


class Death(msgspec.Struct, frozen=True):
    """Why a claimed change goes to the dead letters."""

    number: int
    reason: Reason
    attempts: int
    status: int | None = None
    error: str | None = None
    request_id: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """The last word about a claim: it ends the lease.

    Claimed changes that are neither done nor dead stay pending, as do those that came meanwhile; if any are left,
    the target is due again after the delay, else it goes.

    Args:
        applied, unchanged: numbers of the claimed changes that are done.
        dead: the claimed changes that never will be.
        delay_seconds: from now, by the store's clock, until what is left is due.
        attempts: failed attempts to keep with what is left.
        error: what went wrong last, to keep with what is left.
    """

    claim: Claim
    applied: Sequence[int] = ()
    unchanged: Sequence[int] = ()
    dead: Sequence[Death] = ()
    delay_seconds: float = 0.0
    attempts: int = 0
    error: str | None = None

    def done(self) -> set[int]:
        """Give the numbers of the changes that are pending no longer.

        Raises:
            ValueError: a number is not one of the claim's, or is named twice.
        """
        done = {*self.applied, *self.unchanged, *[death.number for death in self.dead]}
        if len(done) < len(self.applied) + len(self.unchanged) + len(self.dead):
            raise ValueError("a settlement names a change twice")
        if not done.issubset([change.number for change in self.claim.changes]):
            raise ValueError("a settlement names a change that its claim does not hold")
        return done


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the changes handed to `Queue.put`."""

    added: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Counts of changes. `in_flight` and `waiting` are parts of `pending`.

    Args:
        in_flight: changes of completions that a worker holds a lease on.
        waiting: changes of completions that wait for a retry time.
        oldest_pending_seconds: age of the oldest pending change; None when there is none.
        recent_per_second: changes done (applied, unchanged or dead) a second over the last five minutes.
    """

    pending: int
    in_flight: int
    waiting: int
    dead: int
    oldest_pending_seconds: float | None
    recent_per_second: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A change that was given up, and why.

    Args:
        number: the letter's own number, by which it is shown, retried and purged.
        metadata: JSON text of an object.
        enqueued_at, died_at: Unix time, seconds.
    """

    number: int
    completion_id: str
    change_id: str | None
    mode: str
    metadata: str
    enqueued_at: float
    reason: str
    status: int | None
    error: str | None
    request_id: str | None
    attempts: int
    died_at: float


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Which dead letters: all that match every condition that is given; with none given, all there are."""

    numbers: Sequence[int] | None = None
    completion_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Revived:
    """What became of dead letters that were sent back: `kept` ones stay dead, their change_id being pending again."""

    retried: int
    kept: int


@dataclass(frozen=True, slots=True)
class Note:
    """A short text that a worker left in the store, for other processes and later runs.

    Args:
        age_seconds: how long ago it was written, by the store's clock.
    """

    text: str
    age_seconds: float


def storable(text: str | None) -> str | None:
    """Give text from outside, such as an error's, in a form that every store takes: no NUL, no half surrogate pair."""
    if text is None:
        return None
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def json_text(value: object) -> str:
    """Encode for the store."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: object) -> str:
    """Take a string of a subclass, which msgspec does not know, for the string that it is."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored")


class Queue(Protocol):
    """A durable queue of metadata changes. Safe to use from many processes at once.

    Every method may raise `QueueUnavailable`; then nothing was changed, or, where the store's answer was lost,
    what was changed is safe to do again.

    `warnings` says what the person who runs it should know about the store, a sentence each.
    """

    @property
    def warnings(self) -> tuple[str, ...]: ...

    async def put(self, changes: Sequence[MetadataChange]) -> Stored:
        """Store the changes in this order, all or none; once it returns they are durable.

        A change whose `change_id` is pending already, in the store or earlier in the same call, is not stored.
        """

    async def claim(self, limit: int, *, lease_seconds: float, owner: str) -> list[Claim]:
        """Lease up to `limit` of the oldest due targets, each to this caller alone."""

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run `lease_seconds` from now; returns the claims whose lease is lost."""

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """End the leases, all in one transaction; returns those that were stale and changed nothing.

        Of several settlements of one claim, the first counts and the others are stale.

        Raises:
            ValueError: a settlement names a change twice, or one that its claim does not hold; nothing was changed.
        """

    async def next_due_seconds(self) -> float | None:
        """Seconds until the next target is due, leases included; 0 or less when one is; None when none is left."""

    async def wait_for_work(self, timeout_seconds: float) -> None:
        """Return when new changes may have come, or after the time-out: a hint, to poll all the same."""

    async def status(self) -> QueueStatus:
        """Counts and ages, for people."""

    def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """The dead letters that match, oldest first, read in pages."""

    async def retry_dead(self, selection: DeadSelection) -> Revived:
        """Make the letters pending again, as the newest changes of their completions, in the letters' order."""

    async def purge_dead(self, selection: DeadSelection) -> int:
        """Delete the letters for good; returns how many there were."""

    async def take_permits(self, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
        """Take up to `count` permits of the rate that all workers share, due at most so far ahead of now.

        Raises:
            ValueError: the rate is not a positive number.
        """

    async def write_note(self, name: str, text: str | None) -> None:
        """Keep a short text under this name, in place of the one before; None removes it."""

    async def read_notes(self) -> dict[str, Note]:
        """All notes by name."""

    async def record_sample(self, sample: Sample) -> None:
        """Keep how things stand as this minute's last sample, for a day."""

    async def history(self, minutes: int) -> list[HistoryMinute]:
        """The last minutes, the one that runs included, oldest first.

        Raises:
            ValueError: more than a day of them, or none, was asked for.
        """

    async def dead_reasons(self) -> dict[str, int]:
        """How many dead letters there are, by reason."""

    async def close(self) -> None:
        """Finish what is under way and let go of the store."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
