"""Folding: all pending changes of one completion, in order, become one update."""

from collections.abc import Mapping, Sequence

import msgspec

from worker.changes.change import MAX_PAIRS, MetadataChange


class Folded(msgspec.Struct, frozen=True):
    """What a sequence of changes comes to.

    Args:
        metadata: the full map that is wanted in the end.
        too_many_keys: positions, in the sequence, of the changes that were left out, since the map after them
            would have held more than sixteen pairs.
        superseded: positions of those that were left out, since one before them, that was not, has a newer `as_of`.
    """

    metadata: dict[str, str]
    too_many_keys: tuple[int, ...]
    superseded: tuple[int, ...] = ()


def needs_current(changes: Sequence[MetadataChange]) -> bool:
    """Whether folding these needs the metadata that the completion has now."""
    return bool(changes) and changes[0].mode == "merge"


def fold(current: Mapping[str, str], changes: Sequence[MetadataChange]) -> Folded:
    """Apply the changes in order, on paper.

    Folding and then sending the result equals sending one by one, refusals included: a change whose result would
    be over the limit of pairs has no effect, and the ones after it see the map as it was; and so has one that says what
    was so before what one before it has said, by their `as_of`: of those that have none, nobody knows.

    Args:
        current: the completion's metadata now; not looked at when the first change is a ``replace``.
        changes: all of one completion, oldest first.
    """
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
            after = {key: value for key, value in change.metadata.items() if value is not None}
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
    """JSON Merge Patch (RFC 7396) of a flat map."""
    merged = dict(metadata)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
