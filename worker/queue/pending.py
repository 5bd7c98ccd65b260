"""Changes that wait to be applied, and the leases under which they are.

A *target* is a completion that has pending changes. Its ``visible_at`` is due time, retry time and lease deadline in
one: a claim takes the oldest visible targets, and an expired lease is a target that is visible again. Every claim
carries a new lease number, the fencing token that each later word about it has to match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import msgspec

from worker.changes import MetadataChange
from worker.changes.mapping import Changes
from worker.queue.letters import Reason
from worker.queue.text import storable

MAX_CHANGES_PER_CLAIM = 1_000
MAX_CHANGES_PER_CALL = 10_000
MAX_BYTES_PER_CALL = 8_000_000
LONGEST_SECONDS = 3_600.0  # of a lease or a delay: what is due much later has its time from a clock that was wrong

Place = Literal["oldest", "middle", "newest", "urgent"]


class QueuedChange(msgspec.Struct, frozen=True, array_like=True):  # made in a fifth of a frozen dataclass's time
    """A stored change, as it lies in the store: not validated again yet. As JSON it is the array of its fields.

    Args:
        number: its place in the queue's order, never used twice.
        metadata: JSON text of an object.
        enqueued_at: Unix time, seconds, by the store's clock.
        trials: what the engine noted about failed tries of this change: text that means nothing to the store; None
            while there were none.
        as_of: when what it says was so, Unix time, seconds; None where the producer did not say.
        batch: the name of the batch that it belongs to; None for none.
    """

    number: int
    completion_id: str
    change_id: str | None
    mode: str
    metadata: str
    enqueued_at: float
    trials: str | None = None
    as_of: float | None = None
    batch: str | None = None


class Claim(msgspec.Struct, frozen=True):
    """The right to work on one completion until the lease runs out.

    Args:
        lease: the fencing token.
        changes: its pending changes, oldest first, at most `MAX_CHANGES_PER_CLAIM`; never empty.
        age_seconds: how long ago the oldest of them was enqueued, by the store's clock, at the time of the claim.
        confirmed: the map that the service confirmed last for the completion, where the first change is a merge and the
            store's log knows one that is young enough; else None.
        newest_as_of: the newest `as_of` of the completion that was applied and is remembered; None where none is, or no
            change of the claim has one.
    """

    completion_id: str
    lease: int
    changes: tuple[QueuedChange, ...]
    age_seconds: float
    confirmed: dict[str, str] | None = None
    newest_as_of: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What tells this claim from all others: its completion and its lease."""
        return self.completion_id, self.lease


class Death(msgspec.Struct, frozen=True):
    """Why a claimed change goes to the dead letters."""

    number: int
    reason: Reason
    attempts: int
    status: int | None = None
    error: str | None = None
    request_id: str | None = None

    def row(self) -> tuple[int, Reason, int, int | None, str | None, str | None]:
        """Give number, reason, attempts, status, error and request id in a form that every store takes."""
        return self.number, self.reason, self.attempts, self.status, storable(self.error), storable(self.request_id)


class Settlement(msgspec.Struct, frozen=True):
    """The last word about a claim: it ends the lease.

    Claimed changes that are neither done nor dead stay pending, as do those that came meanwhile; if any are left,
    the target is due again after the delay, else it goes.

    Args:
        applied, unchanged: numbers of the claimed changes that are done.
        superseded: of those that were not sent, since a change with a newer `as_of` was applied.
        dead: the claimed changes that never will be.
        delay_seconds: from now, by the store's clock, until what is left is due.
        trials: number and text, to keep with changes that stay pending; the others keep what they have.
        confirmed: the whole map that the service confirmed last for the completion; None when it confirmed none.
    """

    claim: Claim
    applied: Sequence[int] = ()
    unchanged: Sequence[int] = ()
    dead: Sequence[Death] = ()
    delay_seconds: float = 0.0
    trials: Sequence[tuple[int, str]] = ()
    confirmed: Mapping[str, str] | None = None
    superseded: Sequence[int] = ()

    def done(self) -> list[int]:
        """Give the numbers of the changes that are pending no longer."""
        done = [*self.applied, *self.unchanged, *self.superseded]
        if self.dead:
            done += [death.number for death in self.dead]
        return done

    @property
    def ends(self) -> int:
        """How many changes are pending no longer."""
        return len(self.applied) + len(self.unchanged) + len(self.superseded) + len(self.dead)

    def trial_rows(self) -> list[tuple[int, str | None]]:
        """Give the trials in a form that every store takes."""
        return [(number, storable(text)) for number, text in self.trials]

    def check(self) -> None:
        """Raise unless it names changes of its claim, each once, and what is left is due within reason.

        Raises:
            ValueError: a number is not one of the claim's, or is named twice; or the delay is too long.
        """
        if self.delay_seconds > LONGEST_SECONDS:
            raise ValueError(f"a settlement's delay must be at most {LONGEST_SECONDS:g} seconds")
        named = self.done()
        if self.trials:
            named += [number for number, _ in self.trials]
        left = set(named)
        if len(left) < len(named):
            raise ValueError("a settlement names a change twice")
        for change in self.claim.changes:
            left.discard(change.number)
        if left:
            raise ValueError("a settlement names a change that its claim does not hold")


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the changes handed to `Queue.put`: each is one of the three.

    Args:
        duplicates: not stored, since the same change is pending under their `change_id`, or one was applied under it
            lately, whatever that said.
        conflicts: positions, in the call, of those that were not stored although they say something else than what is
            pending under their `change_id`: of another completion, in another mode, or with other metadata.
    """

    added: int
    duplicates: int
    conflicts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Counts of changes. `in_flight` and `waiting` are parts of `pending`.

    Args:
        in_flight: changes of completions that a worker holds a lease on.
        waiting: changes of completions that wait for a retry time.
        oldest_pending_seconds: age of the oldest pending change; None when there is none.
        recent_per_second: changes done (applied, unchanged, superseded or dead) a second over the last five minutes.
        approximate: whether some of the counts are estimates: where to count would take long.
    """

    pending: int
    in_flight: int
    waiting: int
    dead: int
    oldest_pending_seconds: float | None
    recent_per_second: float
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """What one worker has in hand.

    Args:
        owner: the worker's name.
        completions: how many it holds a lease on, and
        changes: how many changes they have.
        since: when the first of the leases was taken; Unix time, seconds.
        until: when the last of them runs out, unless it is extended; likewise.
    """

    owner: str
    completions: int
    changes: int
    since: float
    until: float

    def and_also(self, other: Self) -> Self:
        """What it holds together with these."""
        return replace(
            self,
            completions=self.completions + other.completions,
            changes=self.changes + other.changes,
            since=min(self.since, other.since),
            until=max(self.until, other.until),
        )


def check_lease(lease_seconds: float) -> None:
    """Raise unless a lease may be as long.

    Raises:
        ValueError: it may not.
    """
    if lease_seconds > LONGEST_SECONDS:
        raise ValueError(f"a lease must be at most {LONGEST_SECONDS:g} seconds")


class Queue(Protocol):
    """The queue proper: changes go in, are claimed, and end."""

    async def put(self, changes: Changes, *, batch: str | None = None, urgent: bool = False) -> Stored:
        """Store the changes in this order; once it returns they are durable.

        One change, a list or a tuple is stored whole or not at all. Of any other iterable, an async one too, up to
        5,000 are read and stored at a time, each batch whole; where one fails, those before stay, and the error's
        `taken` says how many changes they had.

        A change whose `change_id` is pending already, in the store or earlier in the same call, is not stored; where it
        says something else than the one that is pending, it is a conflict. Nor is one stored whose `change_id` was
        applied lately, as far as `settle` remembers: it came late.

        Args:
            changes: each a `MetadataChange`, or a mapping with the fields of a line (``completion_id``, ``metadata``,
                ``mode``, ``change_id``, ``as_of``).
            batch: the name of the batch that they belong to, which may have changes already; None for none.
            urgent: whether their completions come before all others, with all that is pending for them.

        Raises:
            InvalidChange: one of them is no change; the message says at which position. Or the batch's name is none.
        """

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Positions of those that would be conflicts with what is pending now; nothing is stored."""

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        """Lease up to `limit` of the oldest due targets, each to this caller alone.

        All of them together carry at most `MAX_CHANGES_PER_CALL` changes with `MAX_BYTES_PER_CALL` of metadata text;
        further targets stay due. The first has one change at least, and what a claim could not carry of its target is
        due again when it is settled. A lease that ran out holds until its target is claimed again: one that was only
        looked at, and left due, is still its worker's to settle or extend.

        Args:
            lease_seconds: at most `LONGEST_SECONDS`, here and for `extend`.
            owner: the worker's name, for `leases`.
            place: "urgent" leases the oldest of the targets with an urgent change, the other places of those without.
                "middle" and "newest" lease one target at most, to try whether it goes better than the oldest: the
                newest that is due, or one that is far from both ends. Targets that are due since the same moment are
                in the order in which they came.
            confirmed_seconds: how young a map has to be to be told as `Claim.confirmed`; 0 for none: nothing is read.
        """

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Let the leases run `lease_seconds` from now; returns the claims whose lease is lost."""

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases, all in one transaction; returns those that were stale and changed nothing.

        Of several settlements of one claim, the first counts and the others are stale.

        Args:
            keep_seconds: how long to keep what is `confirmed` by those that count, for later claims; 0 for not at all.
                No more than the last 200,000 updates are kept: `warnings` tells where those are younger.
            remember: whether to keep, until `forget` lets go of it, of what is applied or unchanged by those that count
                the `change_id`, and by completion the newest `as_of`; of what is superseded, the `change_id`.

        Raises:
            ValueError: a settlement names a change twice, or one that its claim does not hold; nothing was changed.
        """

    async def next_due_seconds(self) -> float | None:
        """Seconds until the next target is due, leases included; 0 or less when one is; None when none is left."""

    @property
    def poll_seconds(self) -> float:
        """How often to ask what is due where nothing is heard: others' changes may come without a word."""

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Return when new changes may have come, or, with False, after the time-out: a hint, to poll all the same."""

    async def status(self) -> QueueStatus:
        """Counts and ages, for people."""

    async def leases(self) -> list[LeaseHolder]:
        """Who holds leases that run, the longest holder first."""
