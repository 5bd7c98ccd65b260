"""The outcome of a claim, which the recorder stores, counts and logs."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Self

import msgspec

from worker.queue import Claim, Death, QueuedChange, Settlement


class Deferral(StrEnum):
    """Why claimed changes stay pending."""

    RETRY = "retry"  # a request failed: they are due again later
    SNOOZED = "snoozed"  # not their fault: the service asked to wait
    RELEASED = "released"  # not their fault: the worker stops, is halted or is paused


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one claim. Every claimed change is in exactly one of the five groups.

    Args:
        applied, unchanged, dead, deferred: four groups of claimed changes.
        superseded: the fifth: changes that were not sent, since a change with a newer `as_of` was applied.
        keys: names of the metadata keys that the changes set or remove.
        before: the map that the changes were folded onto, read or confirmed lately; None if that was not needed.
        metadata: the map that was sent, or found in place; None if there is neither.
        confirmed: the map that the service has after the update; None if nothing was written.
        verified: whether the answer showed the metadata.
        leftover_keys: keys that the service kept although a replacement leaves them out.
        leftover: how many applied changes left such keys.
        attempts: the most counted failures of any of the changes.
        status, request_id, error: from the last answer; they hold no body, key or metadata value.
        duration_ms: of the last request.
        lag_ms: from the oldest change's enqueue to this outcome.
        deferral: why the deferred changes stay pending; None if there are none.
        delay_seconds: until the deferred changes are due again.
        absent_seconds: until the deferred changes are given up; None unless their completion was not found.
        second_look: whether the answer showed other metadata than wanted, so that a second try decides.
        trials: (change number, text): the deferred changes' records of failures, for the queue to keep.
        trace: ids of the trace, for the log; empty without tracing.
    """

    claim: Claim
    applied: Sequence[QueuedChange] = ()
    unchanged: Sequence[QueuedChange] = ()
    superseded: Sequence[QueuedChange] = ()
    dead: Sequence[tuple[QueuedChange, Death]] = ()
    keys: Sequence[str] = ()
    before: Mapping[str, str] | None = None
    metadata: dict[str, str] | None = None
    confirmed: dict[str, str] | None = None
    verified: bool = True
    leftover_keys: tuple[str, ...] = ()
    leftover: int = 0
    attempts: int = 0
    error: str | None = None
    status: int | None = None
    request_id: str | None = None
    duration_ms: float | None = None
    lag_ms: float = 0.0
    deferred: Sequence[QueuedChange] = ()
    deferral: Deferral | None = None
    delay_seconds: float = 0.0
    absent_seconds: float | None = None
    second_look: bool = False
    trials: Sequence[tuple[int, str]] = ()
    trace: Mapping[str, str] = {}

    def settlement(self) -> Settlement:
        """The part of the outcome that the queue stores."""
        return Settlement(
            self.claim,
            [change.number for change in self.applied] if self.applied else (),
            [change.number for change in self.unchanged] if self.unchanged else (),
            [death for _, death in self.dead] if self.dead else (),
            self.delay_seconds,
            self.trials,
            self.confirmed,
            [change.number for change in self.superseded] if self.superseded else (),
        )

    def given_back(self) -> Self:
        """The same claim with all changes still pending, so that they are applied again."""
        return msgspec.structs.replace(
            self,
            applied=(),
            unchanged=(),
            superseded=(),
            dead=(),
            deferred=self.claim.changes,
            deferral=Deferral.RELEASED,
            delay_seconds=0.0,
            leftover=0,
        )
