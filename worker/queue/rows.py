"""Between a store's rows and the types of the contract: what all stores work out in the same way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from worker.changes import MetadataChange
from worker.queue.pending import (
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CALL,
    Claim,
    LeaseHolder,
    QueuedChange,
    QueueStatus,
    Settlement,
)
from worker.queue.text import json_text, size_bytes

T = TypeVar("T")

_metadata = msgspec.json.Decoder(dict[str, str | None]).decode

RECENT_MINUTES = 5
# Where to look for what is in the middle, as shares of the way from one end to the other: a JSON array.
MIDDLE_STEPS = json_text([step / 16 for step in range(17)])


def conflicts_among(changes: Sequence[MetadataChange], suspects: Iterable[tuple[int, str, str, str]]) -> Iterator[int]:
    """Give the positions of the changes that say something else than what is pending under their change_id.

    Args:
        suspects: position, and completion_id, mode and metadata, as JSON text, of what is pending: of all whose text is
            another, which may say the same.
    """
    for position, completion_id, mode, metadata in suspects:
        given = changes[position]
        if (completion_id, mode, _metadata(metadata)) != (given.completion_id, given.mode, given.metadata):
            yield position


def holders_of(held: Iterable[LeaseHolder]) -> list[LeaseHolder]:
    """Put together what each worker has in hand, the longest holder first."""
    holders: dict[str, LeaseHolder] = {}
    for each in held:
        before = holders.get(each.owner)
        holders[each.owner] = before.and_also(each) if before else each
    return sorted(holders.values(), key=lambda holder: holder.since)


def age_seconds(now: float, then: float) -> float:
    """How long ago that was; never less than nothing, whatever clocks do."""
    return max(0.0, now - then)


def microseconds(seconds: float) -> int:
    """The unit in which the time bounds the number of a lease from below."""
    return int(seconds * 1_000_000)


def claims_of(leases: Mapping[str, int], changes: Sequence[QueuedChange], *, now: float) -> list[Claim]:
    """Put claims together.

    Args:
        leases: by completion.
        changes: those of one target after those of another, oldest first, up to `MAX_CHANGES_PER_CLAIM` of each; and of
            all as many as one call may carry, and the next one where there are more: then the last target is left out,
            whose changes are not all there, or, where it is the only one, has only what can be carried.
        now: Unix time, seconds, by the store's clock.
    """
    whole = _bearable(changes)
    claims: list[Claim] = []
    start = 0
    while start < len(changes):
        oldest = changes[start]
        completion_id = oldest.completion_id
        end = start + 1
        while end < len(changes) and changes[end].completion_id == completion_id:
            end += 1
        if end > whole and claims:
            break
        mine = tuple(changes[start : end if end <= whole else max(whole, 1)])
        claims.append(Claim(completion_id, leases[completion_id], mine, age_seconds(now, oldest.enqueued_at)))
        start = end
    return claims


def _bearable(changes: Sequence[QueuedChange]) -> int:
    """How many of the first changes one call may carry."""
    carried_bytes = 0
    for position, change in enumerate(changes[:MAX_CHANGES_PER_CALL]):
        carried_bytes += size_bytes(change.metadata)
        if carried_bytes > MAX_BYTES_PER_CALL:
            return position
    return min(len(changes), MAX_CHANGES_PER_CALL)


def first_words(
    settlements: Sequence[Settlement], held: Mapping[int, T]
) -> tuple[dict[T, Settlement], list[Settlement]]:
    """Tell the settlements that count from the stale ones: of several words about one claim, the first counts.

    Args:
        held: by position, the target of those whose lease holds.

    Returns:
        those that count, by target; and the others.
    """
    valid: dict[T, Settlement] = {}
    stale = []
    for position, settlement in enumerate(settlements):
        target = held.get(position)
        if target is not None and target not in valid:
            valid[target] = settlement
        else:
            stale.append(settlement)
    return valid, stale


def ended(settlements: Iterable[Settlement]) -> tuple[int, int, int, int]:
    """Count the changes that are applied, unchanged, dead and superseded."""
    applied = unchanged = dead = superseded = 0
    for settlement in settlements:
        applied += len(settlement.applied)
        unchanged += len(settlement.unchanged)
        dead += len(settlement.dead)
        superseded += len(settlement.superseded)
    return applied, unchanged, dead, superseded


@dataclass(slots=True)
class Remembered:
    """What settlements leave to be remembered.

    Args:
        as_of: the newest that was applied, by completion, of changes that have one.
        change_ids: of what is applied, unchanged or superseded.
    """

    as_of: dict[str, float]
    change_ids: list[str]


def remembered_of(settlements: Iterable[Settlement]) -> Remembered:
    """Put together what is to be remembered of these, where they count; most leave nothing."""
    remembered = Remembered({}, [])
    for settlement in settlements:
        claim = settlement.claim
        telling = {each.number: each for each in claim.changes if each.as_of is not None or each.change_id is not None}
        if not telling:
            continue
        for number in (*settlement.applied, *settlement.unchanged, *settlement.superseded):
            change = telling.get(number)
            if change is not None and change.change_id is not None:
                remembered.change_ids.append(change.change_id)
        newest = [telling[each].as_of for each in (*settlement.applied, *settlement.unchanged) if each in telling]
        if found := [as_of for as_of in newest if as_of is not None]:
            remembered.as_of[claim.completion_id] = max(found)
    return remembered


def dated(claims: Sequence[Claim]) -> list[str]:
    """The completions of the claims that have a change with an `as_of`: what the newest one was has to be looked up."""
    # A list for each claim, since a generator takes twice as long to set up.
    return [claim.completion_id for claim in claims if [each for each in claim.changes if each.as_of is not None]]


def with_newest(claims: Sequence[Claim], newest: Mapping[str, float]) -> list[Claim]:
    """Give the claims with the newest `as_of` of their completions.

    Args:
        newest: by completion, of those that are `dated`.
    """
    if not newest:
        return list(claims)
    return [
        msgspec.structs.replace(claim, newest_as_of=newest[claim.completion_id])
        if claim.completion_id in newest
        else claim
        for claim in claims
    ]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a store counts for a status.

    Args:
        oldest_enqueued_at: Unix time, seconds; None when nothing is pending.
        recently_done: changes done since `recent_since`; what was withdrawn is not.
    """

    pending: int
    in_flight: int
    waiting: int
    dead: int
    oldest_enqueued_at: float | None
    recently_done: int
    approximate: bool = False


def recent_since(now: float) -> int:
    """The first minute of Unix time that is recent."""
    return int(now // 60) - RECENT_MINUTES + 1


def status_of(counts: Counts, *, now: float) -> QueueStatus:
    """Put a status together."""
    oldest = counts.oldest_enqueued_at
    return QueueStatus(
        pending=counts.pending,
        in_flight=counts.in_flight,
        waiting=counts.waiting,
        dead=counts.dead,
        oldest_pending_seconds=None if oldest is None else age_seconds(now, oldest),
        recent_per_second=counts.recently_done / (now - recent_since(now) * 60),
        approximate=counts.approximate,
    )
