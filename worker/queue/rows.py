"""Convert between a store's rows and the contract's types, in the same way for all stores."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Stored,
)
from worker.queue.text import json_text, size_bytes

T = TypeVar("T")

_metadata = msgspec.json.Decoder(dict[str, str | None]).decode

RECENT_MINUTES = 5
_MOST_BYTES_OF_A_CHARACTER = 4  # in UTF-8
# Where to look for a target in the middle: fractions of the range, as a JSON array.
MIDDLE_STEPS = json_text([step / 16 for step in range(17)])
# How many of the last completions that came a claim of the newest looks at.
RECENT_TARGETS = 20


def conflicts_among(changes: Sequence[MetadataChange], suspects: Iterable[tuple[int, str, str, str]]) -> Iterator[int]:
    """Yield the positions of changes that differ from the pending change with the same change_id.

    Args:
        suspects: position, and completion_id, mode and metadata (JSON text) of the pending change, for all whose text
            differs; their content may still be the same.
    """
    for position, completion_id, mode, metadata in suspects:
        given = changes[position]
        if (completion_id, mode, _metadata(metadata)) != (given.completion_id, given.mode, given.metadata):
            yield position


class Put(msgspec.Struct):
    """What becomes of the changes of a put, by their positions.

    Args:
        batch: what the call puts them in.
        elsewhere: those whose change_id is pending in another batch, and that batch; None for none.
        settled: those whose change_id was settled lately.
    """

    batch: str | None
    added: int = 0
    conflicts: list[int] = msgspec.field(default_factory=list)
    elsewhere: dict[int, str | None] = msgspec.field(default_factory=dict)
    settled: set[int] = msgspec.field(default_factory=set)

    def of(self, changes: int) -> Stored:
        """Give the account of so many changes; the rest is pending in their own batch."""
        duplicates = changes - self.added - len(self.conflicts)
        apart = set(self.conflicts)
        pending_in = Counter(batch for position, batch in self.elsewhere.items() if position not in apart)
        rest = duplicates - pending_in.total() - len(self.settled - self.elsewhere.keys())
        if rest:
            pending_in[self.batch] += rest
        return Stored(self.added, duplicates, tuple(self.conflicts), dict(pending_in))


def holders_of(held: Iterable[LeaseHolder]) -> list[LeaseHolder]:
    """Add up the leases per worker, the oldest first."""
    holders: dict[str, LeaseHolder] = {}
    for each in held:
        before = holders.get(each.owner)
        holders[each.owner] = before.and_also(each) if before else each
    return sorted(holders.values(), key=lambda holder: holder.since)


def age_seconds(now: float, then: float) -> float:
    """Return how long ago `then` was; 0 if a clock was put back."""
    return max(0.0, now - then)


def microseconds(seconds: float) -> int:
    """Convert to microseconds: the time in this unit is a lower bound of new lease numbers."""
    return int(seconds * 1_000_000)


def claims_of(leases: Mapping[str, int], changes: Sequence[QueuedChange], *, now: float) -> list[Claim]:
    """Build the claims.

    Args:
        leases: by completion.
        changes: grouped by target, oldest first, up to `MAX_CHANGES_PER_CLAIM` of each; in total as many as one call
            may carry, plus the next one if there are more. In that case the last target is incomplete and left out, or,
            if it is the only one, shortened.
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
    """Return how many of the first changes one call may carry."""
    if (
        len(changes) <= MAX_CHANGES_PER_CALL
        and _MOST_BYTES_OF_A_CHARACTER * sum([len(change.metadata) for change in changes]) <= MAX_BYTES_PER_CALL
    ):
        return len(changes)  # as nearly always
    carried_bytes = 0
    for position, change in enumerate(changes[:MAX_CHANGES_PER_CALL]):
        carried_bytes += size_bytes(change.metadata)
        if carried_bytes > MAX_BYTES_PER_CALL:
            return position
    return min(len(changes), MAX_CHANGES_PER_CALL)


def first_words(
    settlements: Sequence[Settlement], held: Mapping[int, T]
) -> tuple[dict[T, Settlement], list[Settlement]]:
    """Divide settlements into valid and stale ones: of several for one claim, the first counts.

    Args:
        held: by position, the targets of settlements whose lease holds.

    Returns:
        The valid ones, by target; and the others.
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
    """Return the numbers of applied, unchanged, dead and superseded changes."""
    applied = unchanged = dead = superseded = 0
    for settlement in settlements:
        applied += len(settlement.applied)
        unchanged += len(settlement.unchanged)
        dead += len(settlement.dead)
        superseded += len(settlement.superseded)
    return applied, unchanged, dead, superseded


class Remembered(msgspec.Struct):
    """What to remember of settlements.

    Args:
        as_of: the newest applied `as_of`, by completion.
        change_ids: of applied, unchanged and superseded changes.
    """

    as_of: dict[str, float]
    change_ids: list[str]


def remembered_of(settlements: Iterable[Settlement]) -> Remembered:
    """Return what to remember of valid settlements; most leave nothing."""
    remembered = Remembered({}, [])
    for settlement in settlements:
        claim = settlement.claim
        telling = {}
        for each in claim.changes:  # a loop, as most claims have one change: to begin a comprehension costs more
            if each.as_of is not None or each.change_id is not None:
                telling[each.number] = each
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
    """Return the completions of claims with an `as_of`, whose newest applied one must be looked up."""
    completion_ids = []
    for claim in claims:
        for change in claim.changes:
            if change.as_of is not None:
                completion_ids.append(claim.completion_id)
                break
    return completion_ids


def with_newest(claims: Sequence[Claim], newest: Mapping[str, float]) -> list[Claim]:
    """Return the claims with the newest `as_of` of their completions.

    Args:
        newest: by completion, for those in `dated`.
    """
    if not newest:
        return list(claims)
    return [
        msgspec.structs.replace(claim, newest_as_of=newest[claim.completion_id])
        if claim.completion_id in newest
        else claim
        for claim in claims
    ]


class Counts(msgspec.Struct, frozen=True):
    """A store's counts for a status.

    Args:
        oldest_enqueued_at: Unix time, seconds; None when nothing is pending.
        recently_done: changes done since `recent_since`, without withdrawn ones.
    """

    pending: int
    in_flight: int
    waiting: int
    dead: int
    oldest_enqueued_at: float | None
    recently_done: int
    approximate: bool = False


def recent_since(now: float) -> int:
    """Return the first recent minute of Unix time."""
    return int(now // 60) - RECENT_MINUTES + 1


def status_of(counts: Counts, *, now: float) -> QueueStatus:
    """Build a status."""
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
