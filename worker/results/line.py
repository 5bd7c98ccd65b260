"""The lines of a results file: one for each change that has left the queue."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from worker.engine.outcome import Outcome
from worker.queue import QueuedChange, Reason
from worker.results.places import Places, fingerprint

Ended = Literal["applied", "unchanged", "superseded", "dead"]

_decode = msgspec.json.Decoder(dict[str, str | None]).decode
_encode_lines = msgspec.json.Encoder().encode_lines


class Result(msgspec.Struct, frozen=True):
    """The result of a change that has left the queue.

    Args:
        change: its number in the queue. If several lines have the same number, the last one counts.
        change_id: its `change_id`; null for none.
        file: the input file, as named to this run of `apply`; null if not known.
        line: its line in the file, or its record in a file with one JSON document.
        batch: its batch; null for none.
        outcome: ``applied``, ``unchanged`` (the service had it already), ``superseded`` (not sent, since a change with
            a newer `as_of` was applied), or ``dead``.
        reason: why it is a dead letter; else null.
        error: the error of a dead letter; contains no metadata value.
        status: HTTP status of the service's last answer; null if there was none.
        request_id: the request id of that answer.
        attempts: how often the change was tried, as counted in the log; 0 if it was superseded.
        at: when it was recorded, UTC.
        keys: the metadata keys in the change.
        before: with `--with-values`, the completion's metadata before the update; null if it was not read (as for a
            `replace`), and for a superseded change.
        after: with `--with-values`, the metadata after the update; null for a dead letter or a superseded change, and
            if it is not known.
    """

    change: int
    completion_id: str
    change_id: str | None
    batch: str | None
    file: str | None
    line: int | None
    outcome: Ended
    reason: Reason | None
    error: str | None
    status: int | None
    request_id: str | None
    attempts: int
    at: str
    keys: Sequence[str]
    before: Mapping[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    after: Mapping[str, str] | msgspec.UnsetType | None = msgspec.UNSET


def text_of(results: Sequence[Result]) -> bytes:
    """Encode the results as lines of JSON, each with its newline."""
    try:
        return _encode_lines(results)
    except UnicodeEncodeError:  # half a surrogate pair, from a file's name or a store that others write to
        return "".join(json.dumps(msgspec.to_builtins(result)) + "\n" for result in results).encode()


def results_of(outcomes: Sequence[Outcome], at: str, *, places: Places | None, with_values: bool) -> Iterator[Result]:
    """Yield a result for each change that is no longer pending.

    Args:
        at: when they were recorded.
        places: the input positions of changes, if known.
    """
    for outcome in outcomes:
        word = _Word(outcome.status, outcome.request_id, outcome.attempts + 1)
        before: _Values = outcome.before if with_values else msgspec.UNSET
        after: _Values = _after(outcome) if with_values else msgspec.UNSET
        keys = outcome.keys if len(outcome.claim.changes) == 1 else None
        for change in outcome.applied:
            yield _result(change, "applied", word, at, keys, places, before, after)
        for change in outcome.unchanged:
            yield _result(change, "unchanged", word, at, keys, places, before, after)
        for change in outcome.superseded:
            unsent: _Values = None if with_values else msgspec.UNSET
            yield _result(change, "superseded", _UNSENT, at, keys, places, unsent, unsent)
        for change, death in outcome.dead:
            last = _Word(death.status, death.request_id, death.attempts, death.reason, death.error)
            yield _result(change, "dead", last, at, keys, places, before, None if with_values else msgspec.UNSET)


_Values = Mapping[str, str] | None | msgspec.UnsetType


class _Word(NamedTuple):
    """The service's last answer, and the reason of a dead letter."""

    status: int | None
    request_id: str | None
    attempts: int
    reason: Reason | None = None
    error: str | None = None


_UNSENT = _Word(None, None, 0)


def _result(  # noqa: PLR0917 -- called once per change: keywords would cost time
    change: QueuedChange,
    outcome: Ended,
    word: _Word,
    at: str,
    keys: Sequence[str] | None,
    places: Places | None,
    before: _Values,
    after: _Values,
) -> Result:
    status, request_id, attempts, reason, error = word
    file, line = None, None
    if keys is None or places is not None:
        metadata = _metadata(change)
        keys = list(metadata)
        if places is not None:
            found = fingerprint(change.completion_id, change.change_id, change.mode, metadata)
            file, line = places.of(change.number, found)
    return Result(
        change.number,
        change.completion_id,
        change.change_id,
        change.batch,
        file,
        line,
        outcome,
        reason,
        error,
        status,
        request_id,
        attempts,
        at,
        keys,
        before,
        after,
    )


def _metadata(change: QueuedChange) -> dict[str, str | None]:
    try:
        return _decode(change.metadata)
    except msgspec.DecodeError:  # others can write to the store
        return {}


def _after(outcome: Outcome) -> Mapping[str, str] | None:
    """Return the metadata that the service confirmed, or that was read."""
    if outcome.confirmed is not None:
        return outcome.confirmed
    return None if outcome.applied else outcome.metadata
