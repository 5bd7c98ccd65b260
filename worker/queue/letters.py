"""Dead letters: changes that were given up, which users can read, retry or purge."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, get_args

import msgspec

Reason = Literal[
    "invalid", "rejected", "not_found", "too_many_keys", "not_persisted", "unreadable", "attempts_exhausted"
]
MOST_NUMBERS_TOLD = 100
LONGEST_AGO_SECONDS = 1e10  # three centuries, within every store's range
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A change that was given up, and why.

    Args:
        number: the letter's own number, which selects it to show, retry or purge.
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
    def decoded(self) -> Any:  # noqa: ANN401 -- an invalid letter has any content
        """The decoded metadata; its text if it is no JSON, such as NaN, or nested too deeply."""
        try:
            decoded = json.loads(self.metadata)
            json.dumps(decoded, allow_nan=False)
        except (ValueError, RecursionError):
            return self.metadata
        return decoded


@dataclass(frozen=True, slots=True)
class DeadSelection:
    """Selects the dead letters that match every given condition; all letters without conditions.

    Args:
        until: no letters with a higher number, which came after the user looked.
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
        """The minimum and maximum age of the letters, in seconds; None for any."""
        if self.older_than_seconds is None and self.within_seconds is None:
            return None
        # A letter that died in the future, because a clock was put back, counts as young.
        shortest = -LONGEST_AGO_SECONDS if self.older_than_seconds is None else self.older_than_seconds
        longest = LONGEST_AGO_SECONDS if self.within_seconds is None else self.within_seconds
        return min(shortest, LONGEST_AGO_SECONDS), min(longest, LONGEST_AGO_SECONDS)

    @property
    def index(self) -> Literal["number", "completion", "batch", "reason", "all"]:
        """The index to use for the selection."""
        if self.numbers is not None:
            return "number"
        if self.completion_id is not None:
            return "completion"
        if self.batch is not None:
            return "batch"
        return "all" if self.reason is None else "reason"


@dataclass(frozen=True, slots=True)
class Revived:
    """The result of retrying dead letters.

    Args:
        kept: letters that stay dead, because their `change_id` is pending again or was applied since.
        superseded: letters that stay dead, because a change with a newer `as_of` was applied.
        superseded_numbers: the numbers of the first 100 superseded ones.
    """

    retried: int
    kept: int
    superseded: int = 0
    superseded_numbers: tuple[int, ...] = ()

    def and_also(self, other: Self) -> Self:
        """Add the result for later letters."""
        return replace(
            self,
            retried=self.retried + other.retried,
            kept=self.kept + other.kept,
            superseded=self.superseded + other.superseded,
            superseded_numbers=(self.superseded_numbers + other.superseded_numbers)[:MOST_NUMBERS_TOLD],
        )


class LetterCount(msgspec.Struct, frozen=True):
    """The number of letters of a kind, and the highest letter number among them."""

    letters: int
    newest: int


class DeadLetters(Protocol):
    """The contract's part on changes that were given up."""

    def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Yield matching letters, oldest first, read in pages."""

    async def retry_dead(self, selection: DeadSelection, *, go_on: Callable[[Revived], bool] | None = None) -> Revived:
        """Make the letters pending again, as the newest changes of their completions, in the letters' order.

        Args:
            go_on: called after each piece but the last, with the totals so far; if it returns False, the call ends.
        """

    async def purge_dead(self, selection: DeadSelection, *, go_on: Callable[[int], bool] | None = None) -> int:
        """Delete the letters for good; return how many there were.

        Args:
            go_on: as for `retry_dead`.
        """

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        """Among the `most` oldest letters, delete those that died longer ago; return how many there were.

        One short transaction, which may examine fewer: call again until it deletes nothing.
        """

    async def dead_reasons(self, until: int | None = None) -> dict[str, LetterCount]:
        """Return the number of dead letters by reason; with `until`, only up to that letter number."""
