"""Dead letters: the changes that were given up, which people read, send back or delete."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, get_args

Reason = Literal[
    "invalid", "rejected", "not_found", "too_many_keys", "not_persisted", "unreadable", "attempts_exhausted"
]
MOST_NUMBERS_TOLD = 100
LONGEST_AGO_SECONDS = 1e10  # three centuries: every store can count so far back
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A change that was given up, and why.

    Args:
        number: the letter's own number, by which it is shown, retried and purged.
        metadata: JSON text of an object.
        enqueued_at, died_at: Unix time, seconds.
        as_of, batch: of the change; see `QueuedChange`.
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
    as_of: float | None = None
    batch: str | None = None

    @property
    def decoded(self) -> Any:  # noqa: ANN401 -- an invalid letter holds whatever was stored
        """What the metadata says; its text where that is no JSON, such as NaN, or nests without end."""
        try:
            decoded = json.loads(self.metadata)
            json.dumps(decoded, allow_nan=False)
        except (ValueError, RecursionError):
            return self.metadata
        return decoded


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Which dead letters: all that match every condition that is given; with none given, all there are.

    Args:
        until: none whose number is above this one: those that came after somebody looked.
        older_than_seconds: only those that died longer ago, by the store's clock.
        within_seconds: only those that died no longer ago.
        batch: only those whose change belongs to the batch of this name.
    """

    numbers: Sequence[int] | None = None
    completion_id: str | None = None
    reason: str | None = None
    until: int | None = None
    older_than_seconds: float | None = None
    within_seconds: float | None = None
    batch: str | None = None

    @property
    def ages(self) -> tuple[float, float] | None:
        """How long ago the letters died: at least and at most so many seconds; None for whenever."""
        if self.older_than_seconds is None and self.within_seconds is None:
            return None
        # A letter that died in the future, by a clock that was put back since, is a young one.
        shortest = -LONGEST_AGO_SECONDS if self.older_than_seconds is None else self.older_than_seconds
        longest = LONGEST_AGO_SECONDS if self.within_seconds is None else self.within_seconds
        return min(shortest, LONGEST_AGO_SECONDS), min(longest, LONGEST_AGO_SECONDS)

    @property
    def index(self) -> Literal["number", "completion", "reason", "all"]:
        """What to look them up by."""
        if self.numbers is not None:
            return "number"
        if self.completion_id is not None:
            return "completion"
        return "all" if self.reason is None else "reason"


@dataclass(frozen=True, slots=True)
class Revived:
    """What became of dead letters that were sent back.

    Args:
        kept: they stay dead, since their `change_id` is pending again, or was applied since.
        superseded: they stay dead, since a change with a newer `as_of` was applied to their completion.
        superseded_numbers: the numbers of the first 100 of those.
    """

    retried: int
    kept: int
    superseded: int = 0
    superseded_numbers: tuple[int, ...] = ()

    def and_also(self, other: Self) -> Self:
        """What became of these and of others that come after them."""
        return replace(
            self,
            retried=self.retried + other.retried,
            kept=self.kept + other.kept,
            superseded=self.superseded + other.superseded,
            superseded_numbers=(self.superseded_numbers + other.superseded_numbers)[:MOST_NUMBERS_TOLD],
        )


@dataclass(frozen=True, slots=True)
class LetterCount:
    """How many letters there are of a kind, and the number of the newest of them."""

    letters: int
    newest: int


class DeadLetters(Protocol):
    """The changes that were given up."""

    def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """The dead letters that match, oldest first, read in pages."""

    async def retry_dead(self, selection: DeadSelection, *, go_on: Callable[[Revived], bool] | None = None) -> Revived:
        """Make the letters pending again, as the newest changes of their completions, in the letters' order.

        Args:
            go_on: is asked after each piece but the last, and told what became of all so far; where it says False, it
                ends there.
        """

    async def purge_dead(self, selection: DeadSelection, *, go_on: Callable[[int], bool] | None = None) -> int:
        """Delete the letters for good; returns how many there were.

        Args:
            go_on: as of `retry_dead`.
        """

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        """Delete, of the `most` oldest letters, those that died longer ago; returns how many there were.

        One short transaction, which may look at fewer: to be called again until nothing is left to delete.
        """

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """How many dead letters there are, by reason; with `until`, of those whose number is not above it."""
