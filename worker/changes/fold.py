"""Folding: all pending changes of one completion, in order, become one update."""

from collections.abc import Mapping, Sequence

import msgspec

from worker.changes.change import MAX_PAIRS, MetadataChange


class Folded(msgspec.Struct, frozen=True):
    """The result of folding a sequence of changes.

    Args:
        metadata: the full map after all changes.
        too_many_keys: positions, in the sequence, of changes that were left out because the map would have held more
            than sixteen pairs.
        superseded: positions of changes that were left out because an earlier one in the sequence has a newer `as_of`.
    """

    metadata: dict[str, str]
    too_many_keys: tuple[int, ...]
    superseded: tuple[int, ...] = ()


def needs_current(changes: Sequence[MetadataChange]) -> bool:
    """Whether folding these needs the completion's current metadata."""
    return bool(changes) and changes[0].mode == "merge"


def fold(current: Mapping[str, str], changes: Sequence[MetadataChange]) -> Folded:
    """Apply the changes in order, without sending anything.

    Sending the folded result equals sending the changes one by one, refusals included. A change has no effect if its
    result would exceed the limit of pairs. Nor has it one if an earlier change in the sequence has a newer `as_of`. The
    changes after it see the map as it was. A change without `as_of` is never left out for its age.

    Args:
        current: the completion's current metadata; ignored if the first change is a ``replace``.
        changes: the changes of one completion, oldest first.
    """
    if len(changes) == 1 and changes[0].mode == "replace":  # as nearly always, and it holds no more pairs than allowed
        return Folded(dict(changes[0].metadata), ())  # type: ignore[arg-type] # in a `replace`, no value is None
    metadata = dict(current)
    refused = []
    superseded = []
    newest = None
    for position, change in enumerate(changes):
        as_of = change.as_of
        if as_of is not None and newest is not None and as_of < newest:
            superseded.append(position)
            continue
        if change.mode == "replace":
            after: dict[str, str] = dict(change.metadata)  # type: ignore[arg-type] # in a `replace`, no value is None
        else:
            after = _merged(metadata, change.metadata)
        if len(after) > MAX_PAIRS:
            refused.append(position)
        else:
            metadata = after
            if as_of is not None:
                newest = as_of
    return Folded(metadata, tuple(refused), tuple(superseded))


def _merged(metadata: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """Apply a JSON Merge Patch (RFC 7396) to a flat map."""
    merged = dict(metadata)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
