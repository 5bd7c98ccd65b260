"""The lines of results: what is told of each change."""

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
    """What became of a change that has left the queue.

    Args:
        change: its number in the queue. Of several lines with one number the last counts.
        change_id: the one that it was enqueued with; null for none.
        file: the file that it was read from, as it was named to this run of `apply`; null where that is not known.
        line: its line there, or, of a file with one JSON document, its record.
        batch: the batch that it belongs to; null for none.
        outcome: ``applied``, ``unchanged`` (the service had it already), ``superseded`` (not sent, since a change with
            a newer `as_of` was applied), or ``dead``.
        reason: of a dead letter.
        error: what was wrong with a dead letter; it holds no metadata value.
        status: HTTP status of the service's last answer; null where there was none.
        request_id: of that answer.
        attempts: that were made of the change, as the log counts them; 0 where it is superseded.
        at: when it was recorded, UTC.
        keys: names of the metadata keys that the change is about.
        before: with `--with-values`, the completion's metadata before the update that the change was part of; null
            where it was not read, as for a `replace`, and for one that is superseded.
        after: with `--with-values`, the metadata after that; null for a dead letter and one that is superseded, and
            where it is not known.
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
    """The results as lines of JSON, each with its newline."""
    try:
        return _encode_lines(results)
    except UnicodeEncodeError:  # half a surrogate pair, in a file's name or from a store that others write to
        return "".join(json.dumps(msgspec.to_builtins(result)) + "\n" for result in results).encode()


def results_of(outcomes: Sequence[Outcome], at: str, *, places: Places | None, with_values: bool) -> Iterator[Result]:
    """A result for each change that is no longer pending; what stays pending has none yet.

    Args:
        at: when they were recorded.
        places: where changes were read, as far as that is known.
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
    """What the service said last, and what came of it."""

    status: int | None
    request_id: str | None
    attempts: int
    reason: Reason | None = None
    error: str | None = None


_UNSENT = _Word(None, None, 0)


def _result(  # noqa: PLR0917 -- in a loop over all changes of a run
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
    except msgspec.DecodeError:  # the store is a file or a server that others can write to
        return {}


def _after(outcome: Outcome) -> Mapping[str, str] | None:
    """What the service has, as it says itself, or as it was read."""
    if outcome.confirmed is not None:
        return outcome.confirmed
    return None if outcome.applied else outcome.metadata
