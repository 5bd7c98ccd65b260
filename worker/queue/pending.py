"""Pending changes, and the leases on them.

A *target* is a completion with pending changes. Its ``visible_at`` is due time, retry time and lease deadline in one:
a claim takes the oldest visible targets, and an expired lease makes its target visible again. Every claim has a new
lease number: the fencing token that each later call about the claim must match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import msgspec

from worker.changes import MetadataChange
from worker.changes.mapping import Changes
from worker.queue.letters import Reason
from worker.queue.text import storable

MAX_CHANGES_PER_CLAIM = 1_000
MAX_CHANGES_PER_CALL = 10_000
MAX_BYTES_PER_CALL = 8_000_000
LONGEST_SECONDS = 3_600.0  # for a lease or a delay: a much later due time comes from a wrong clock

Place = Literal["oldest", "middle", "newest", "urgent"]


class QueuedChange(msgspec.Struct, frozen=True, array_like=True):  # five times faster to make than a frozen dataclass
    """A stored change, not validated again. Its JSON form is the array of its fields.

    Args:
        number: its position in the queue's order, never used twice.
        metadata: JSON text of an object.
        enqueued_at: Unix time, seconds, by the store's clock.
        trials: the engine's notes on failed tries of this change, opaque to the store; None if there were none.
        as_of: when its content was true, Unix time in seconds; None if the producer gave none.
        batch: the name of its batch; None for none.
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
        age_seconds: age of the oldest change at the time of the claim, by the store's clock.
        confirmed: the completion's last confirmed map, if the first change is a merge and the store's log has a map
            that is young enough; else None.
        newest_as_of: the completion's newest applied `as_of` that is remembered; None if there is none, or if no change
            of the claim has one.
    """

    completion_id: str
    lease: int
    changes: tuple[QueuedChange, ...]
    age_seconds: float
    confirmed: dict[str, str] | None = None
    newest_as_of: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The claim's identity: its completion and its lease."""
        return self.completion_id, self.lease


class Death(msgspec.Struct, frozen=True):
    """Why a claimed change becomes a dead letter."""

    number: int
    reason: Reason
    attempts: int
    status: int | None = None
    error: str | None = None
    request_id: str | None = None

    def row(self) -> tuple[int, Reason, int, int | None, str | None, str | None]:
        """Return number, reason, attempts, status, error and request id in a form that every store accepts."""
        return self.number, self.reason, self.attempts, self.status, storable(self.error), storable(self.request_id)


class Settlement(msgspec.Struct, frozen=True):
    """The result of a claim, which ends its lease.

    Claimed changes that are neither done nor dead stay pending, as do changes that arrived meanwhile. If any are left,
    the target is due again after the delay; else it is deleted.

    Args:
        applied, unchanged: numbers of the changes that are done.
        superseded: numbers of changes not sent because a change with a newer `as_of` was applied.
        dead: the changes that are given up.
        delay_seconds: from now, by the store's clock, until the remaining changes are due.
        trials: number and text, to store with changes that stay pending; other changes keep theirs.
        confirmed: the completion's whole map as the service confirmed it last; None if it did not.
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
        """Return the numbers of the changes that are no longer pending."""
        done = [*self.applied, *self.unchanged, *self.superseded]
        if self.dead:
            done += [death.number for death in self.dead]
        return done

    @property
    def ends(self) -> int:
        """How many changes are no longer pending."""
        return len(self.applied) + len(self.unchanged) + len(self.superseded) + len(self.dead)

    def trial_rows(self) -> list[tuple[int, str | None]]:
        """Return the trials in a form that every store accepts."""
        return [(number, storable(text)) for number, text in self.trials]

    def check(self) -> None:
        """Raise unless it names changes of its claim, each once, and its delay is within the limit.

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
    """The result of `Queue.put`: each change is added, a duplicate or a conflict.

    Args:
        duplicates: changes not stored, because the same change is pending under their `change_id`, or any change was
            applied under it recently.
        conflicts: positions, in the call, of changes not stored because a different change (another completion, mode or
            metadata) is pending under their `change_id`.
        pending_in: how many of the duplicates are pending, by the name of their batch; None for no batch.
    """

    added: int
    duplicates: int
    conflicts: tuple[int, ...] = ()
    pending_in: Mapping[str | None, int] = field(default_factory=dict)

    @property
    def applied_before(self) -> int:
        """How many of the duplicates have the `change_id` of one that was applied lately.

        What that one said is not known any more: these may say something else, and are not applied.
        """
        return self.duplicates - sum(self.pending_in.values())


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Counts of changes. `in_flight` and `waiting` are parts of `pending`.

    Args:
        in_flight: changes of completions under a worker's lease.
        waiting: changes of completions that wait for a retry.
        oldest_pending_seconds: age of the oldest pending change; None when there is none.
        recent_per_second: changes done (applied, unchanged, superseded or dead) a second over the last five minutes.
        approximate: whether some counts are estimates, because counting would take long.
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
    """The leases of one worker.

    Args:
        owner: the worker's name.
        completions: how many it holds leases on.
        changes: how many changes these have.
        since: when it took the first lease; Unix time, seconds.
        until: when its last lease runs out, unless extended; Unix time, seconds.
    """

    owner: str
    completions: int
    changes: int
    since: float
    until: float

    def and_also(self, other: Self) -> Self:
        """Add further leases of the worker."""
        return replace(
            self,
            completions=self.completions + other.completions,
            changes=self.changes + other.changes,
            since=min(self.since, other.since),
            until=max(self.until, other.until),
        )


def check_lease(lease_seconds: float) -> None:
    """Raise unless the lease is within the limit.

    Raises:
        ValueError: it is too long.
    """
    if lease_seconds > LONGEST_SECONDS:
        raise ValueError(f"a lease must be at most {LONGEST_SECONDS:g} seconds")


class Queue(Protocol):
    """The contract's part on pending changes: put, claim, settle."""

    async def put(self, changes: Changes, *, batch: str | None = None, urgent: bool = False) -> Stored:
        """Store the changes in this order; once it returns they are durable.

        One change, a list or a tuple is stored completely or not at all. Any other iterable, sync or async, is read and
        stored in batches of up to 5,000, each stored completely; if one fails, earlier batches stay stored, and the
        error's `taken` is their number of changes.

        A change is not stored if its `change_id` is pending already, in the store or earlier in the call; if the
        pending change differs, it is a conflict. Nor is it stored if its `change_id` was applied recently, as far as
        `settle` remembers.

        Args:
            changes: each a `MetadataChange`, or a mapping with the fields of a line (``completion_id``, ``metadata``,
                ``mode``, ``change_id``, ``as_of``).
            batch: the name of their batch, which may exist already; None for none.
            urgent: whether their completions, with all pending changes, come before all others.

        Raises:
            InvalidChange: a change (the message has its position) or the batch's name is invalid.
        """

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Return the positions of changes that would conflict with pending ones; nothing is stored."""

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

        All claims together carry at most `MAX_CHANGES_PER_CALL` changes with `MAX_BYTES_PER_CALL` of metadata text;
        further targets stay due. The first claim has at least one change. Changes of a target that its claim could not
        carry are due again when it is settled. An expired lease holds until its target is claimed again: until then its
        worker may still settle or extend it.

        Args:
            lease_seconds: at most `LONGEST_SECONDS`, here and for `extend`.
            owner: the worker's name, for `leases`.
            place: "urgent" leases the oldest targets with an urgent change; the other places lease targets without.
                "middle" and "newest" lease at most one target, as a probe that may work better than the oldest: one far
                from both ends, or the due one that came last. Targets that are due since the same moment are in the
                order of arrival.
            confirmed_seconds: the maximum age of a map for `Claim.confirmed`; 0 to read none.
        """

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        """Extend the leases to `lease_seconds` from now; return the claims whose lease is lost."""

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """End the leases in one transaction; return the settlements that were stale and changed nothing.

        Of several settlements of one claim, the first counts and the others are stale.

        Args:
            keep_seconds: how long to keep the `confirmed` maps for later claims; 0 to keep none. At most the last
                200,000 updates are kept; `warnings` says if younger ones are dropped.
            remember: whether to keep, until `forget` deletes them, the `change_id` of applied, unchanged and superseded
                changes, and each completion's newest `as_of` of applied and unchanged changes.

        Raises:
            ValueError: a settlement names a change twice, or one that is not in its claim; nothing was changed.
        """

    async def forget_confirmed(self, older_than_seconds: float, *, most: int) -> None:
        """Delete `confirmed` maps that are older, the oldest first: `settle` does so only while there is work.

        Args:
            most: how many of those that were settled together to delete at once.
        """

    async def next_due_seconds(self) -> float | None:
        """Return the seconds until the next target is due (leases count); <= 0 if one is due; None if none is left."""

    @property
    def poll_seconds(self) -> float:
        """How often to poll for due work, because changes of other processes may arrive without a notification."""

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Return when changes may have arrived, or False after the time-out. It is a hint only: poll as well."""

    async def status(self) -> QueueStatus:
        """Return counts and ages."""

    async def leases(self) -> list[LeaseHolder]:
        """Return the running leases by worker, the oldest first."""
