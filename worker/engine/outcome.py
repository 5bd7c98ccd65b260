"""What became of a claim: the record that the recorder stores, counts and logs."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Self

import msgspec

from worker.queue import Claim, Death, QueuedChange, Settlement


class Deferral(StrEnum):
    """Why claimed changes stay pending."""

    RETRY = "retry"  # the service failed them: they are due again later
    SNOOZED = "snoozed"  # not their fault: the service asked to wait
    RELEASED = "released"  # not their fault: the worker stops, or everything is halted


class Outcome(msgspec.Struct, frozen=True):
    """The end of one claim. Every claimed change is in exactly one of the five groups.

    Args:
        applied, unchanged, dead, deferred: the claimed changes by what became of them.
        superseded: those that were not sent, since a change with a newer `as_of` was applied.
        keys: names of the metadata keys that the changes are about.
        before: the map that the changes were folded onto, read or confirmed lately; None where that was not needed.
        metadata: the map that was sent or found in place; None when it did not come to that.
        confirmed: the map that the service has now, as it says itself; None where nothing was written.
        verified: whether the answer showed the metadata.
        leftover_keys: keys that the service kept although they were not wanted.
        leftover: applied changes of which the service kept what they were to replace.
        attempts: failures that count against those of the changes that met the most.
        status, request_id, error: of the last answer; no body, key or metadata value is in them.
        duration_ms: of the last request.
        lag_ms: from the oldest change's enqueue to this outcome.
        deferral: why the deferred ones stay pending; None where there are none.
        delay_seconds: until those are due again.
        absent_seconds: the deferred ones wait for their completion to be found: until they are given up.
        second_look: the deferred ones were not shown as they were wanted: what is shown after the delay decides.
        trials: what the queue is to keep with deferred changes: by number, what they have met so far.
        trace: ids to find its trace by, for the log; empty where there is none.
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
        """What the queue has to be told."""
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
        """The outcome of a claim whose changes all stay pending, whatever was done: they are done again."""
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
