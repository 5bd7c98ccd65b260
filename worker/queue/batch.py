"""Batches: changes that were handed in together, under one name, and can be watched and withdrawn together."""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from worker.changes import InvalidChange
from worker.terminal import shown

if TYPE_CHECKING:
    from worker.queue.pending import Settlement

MAX_BATCH_NAME_LENGTH = 128
MAX_FINISHED_BATCHES = 10_000
MAX_REMEMBERED = 5_000_000  # change_ids that were applied, and completions with their newest as_of: of each
# The shell, a URL and a label of a metric take such a name as it is.
BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
_STEM = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 80


class Terms(NamedTuple):
    """The terms of all changes of one call of `put`.

    Args:
        batch: the name of their batch; None for none.
        urgent: whether their completions come before all others.
    """

    batch: str | None = None
    urgent: bool = False

    def checked(self) -> Self:
        """Return the terms if they are valid.

        Raises:
            InvalidChange: the name cannot be a batch's.
            TypeError: `urgent` is neither true nor false.
        """
        if not isinstance(self.urgent, bool):
            raise TypeError(f"urgent must be True or False, not {self.urgent!r}")
        if self.batch is not None:
            check_batch_name(self.batch)
        return self


class BatchEnds(NamedTuple):
    """How many changes of a batch ended, and how."""

    applied: int = 0
    unchanged: int = 0
    superseded: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of a batch's changes.

    Args:
        created_at: Unix time, seconds, by the store's clock, when its first changes came.
        changes: how many were stored under its name, without duplicates.
        applied, unchanged, superseded, withdrawn: how many ended so.
        dead: how many are dead letters, or were before a purge. A retried letter is pending again.
        first_done_at, last_done_at: when the first and the last of them ended; None before the first.
        last_put_at: when the last of its changes came.
    """

    name: str
    created_at: float
    changes: int
    applied: int = 0
    unchanged: int = 0
    superseded: int = 0
    dead: int = 0
    withdrawn: int = 0
    first_done_at: float | None = None
    last_done_at: float | None = None
    last_put_at: float = 0.0

    @property
    def last_heard_of_at(self) -> float:
        """When its last change came, or ended."""
        return max(self.last_put_at, self.last_done_at or 0.0)

    @property
    def done(self) -> int:
        """How many are no longer pending."""
        return self.applied + self.unchanged + self.superseded + self.dead + self.withdrawn

    @property
    def pending(self) -> int:
        """How many are pending."""
        return max(0, self.changes - self.done)

    @property
    def rate_per_second(self) -> float | None:
        """How many ended a second, from the first to the last; None if that is not known."""
        if self.first_done_at is None or self.last_done_at is None or self.last_done_at <= self.first_done_at:
            return None
        return (self.done - self.withdrawn) / (self.last_done_at - self.first_done_at)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at that rate; 0 if nothing is pending, None if that is not known."""
        if not self.pending:
            return 0.0
        rate = self.rate_per_second
        return self.pending / rate if rate else None


@dataclass(frozen=True, slots=True)
class PendingSelection:
    """Selects the pending changes that meet every given condition."""

    batch: str | None = None
    completion_id: str | None = None
    change_id: str | None = None

    def matches(self, completion_id: str, change_id: str | None, batch: str | None) -> bool:
        """Whether it selects a change of this completion, with this `change_id`, of this batch."""
        return (
            self.completion_id in (None, completion_id)
            and self.change_id in (None, change_id)
            and self.batch in (None, batch)
        )

    @property
    def is_everything(self) -> bool:
        """Whether no condition is given."""
        return self.batch is None and self.completion_id is None and self.change_id is None


EVERYTHING = PendingSelection()


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The result of a withdrawal.

    Args:
        withdrawn: how many changes were withdrawn.
        in_flight: how many stay, since a worker holds their completion, and will finish them.
    """

    withdrawn: int
    in_flight: int

    def and_also(self, other: Self) -> Self:
        """Add the result of a later piece."""
        return replace(self, withdrawn=self.withdrawn + other.withdrawn, in_flight=self.in_flight + other.in_flight)


class Batches(Protocol):
    """The contract's part on batches and withdrawals."""

    async def batches(self, name: str | None = None) -> list[Batch]:
        """All batches with pending changes, and those that finished recently, the newest first.

        Args:
            name: only the batch of this name, if there is one.
        """

    async def withdraw(
        self, selection: PendingSelection, *, go_on: Callable[[Withdrawn], bool] | None = None
    ) -> Withdrawn:
        """Withdraw pending changes, in pieces; each is durable once it is done.

        A change whose completion is leased stays, since a worker may be at work on it. A lease that ran out ends with
        this. The remaining changes of a completion stay in their order. A withdrawn change may be put again under its
        `change_id`.

        Args:
            go_on: called after each piece but the last, with the totals so far; if it returns False, the call ends.

        Raises:
            ValueError: the selection has no condition.
        """

    async def forget(self, older_than_seconds: float, *, most: int) -> int:
        """Delete records of finished changes, the oldest first; return how many were deleted.

        Batches go that have no pending change, and whose last change ended or came longer ago; of the others, all but
        the newest 10,000. Of the records that `settle` keeps, older ones go, and all but the last five million of each
        kind. One call is one short transaction: call it again until it returns 0.

        Args:
            most: how many to delete at once, of each kind.
        """


def check_batch_name(name: object) -> None:
    """Raise unless a batch may have this name.

    Raises:
        InvalidChange: it may not.
    """
    if not isinstance(name, str) or not BATCH_NAME.fullmatch(name):
        raise InvalidChange(
            f"{shown(str(name))} is no name of a batch: a letter or digit, then up to 127 of letters, digits, '.', '_',"
            " '-', ':', '@' and '+'"
        )


def new_batch_name(source: str, now: float) -> str:
    """Make an unused name, such as ``labels-2026-11-28T10:15-3f9a``.

    Args:
        source: where the changes come from, such as the path of a file.
        now: Unix time, seconds.
    """
    stem = source.rpartition("/")[2].partition(".")[0]
    stem = _STEM.sub("-", stem).strip("-._")[:_LONGEST_STEM] or "batch"
    return f"{stem}-{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M}-{secrets.token_hex(2)}"


def ends_by_batch(settlements: Iterable["Settlement"]) -> Mapping[str, BatchEnds]:
    """Count how the changes of each batch ended, by the batch's name, without changes of no batch."""
    ends: dict[str, list[int]] = {}
    for settlement in settlements:
        names = {}
        for change in settlement.claim.changes:  # a loop, since a comprehension costs as much as five changes
            if change.batch is not None:
                names[change.number] = change.batch
        if not names:
            continue
        dead = [death.number for death in settlement.dead]
        for place, numbers in enumerate((settlement.applied, settlement.unchanged, settlement.superseded, dead)):
            for number in numbers:
                if name := names.get(number):
                    ends.setdefault(name, [0, 0, 0, 0])[place] += 1
    return {name: BatchEnds(*counts) for name, counts in ends.items()}
