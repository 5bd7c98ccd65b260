"""What the queue does, as functions of a connection: each runs whole in the writer's thread, within its transaction.

The event loop's thread is busy with Python all the time, and every step of a statement that comes back to Python may
wait milliseconds for the interpreter's lock. So each operation is a handful of statements over sets, whatever the size
of the batch: what goes in is one JSON text, and so is what comes out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import apsw
import msgspec

from worker.changes import MetadataChange
from worker.queue.base import (
    MAX_CHANGES_PER_CLAIM,
    RECENT_MINUTES,
    Claim,
    DeadLetter,
    DeadSelection,
    Note,
    QueuedChange,
    QueueStatus,
    Settlement,
    Stored,
    json_text,
    storable,
)
from worker.queue.permits import Grant, grant
from worker.queue.sqlite.statements import statements

PAGE = 500  # dead letters that are read at once
BULK = 10_000  # dead letters that are retried or purged in one transaction

# Of one put, what a statement takes: the JSON text has to be held in memory.
_PUT_CHUNK = 500
# A claim ends early where it would carry more changes than this.
_MAX_CHANGES_PER_CALL = 10_000

_PUT = statements("put")
_CLAIM = statements("claim")
_SETTLE = statements("settle")
_STATUS = statements("status")
_DEAD = statements("dead")
_BUDGET = statements("budget")
_NOTE = statements("note")

_changes = msgspec.json.Decoder(list[QueuedChange]).decode
_held = msgspec.json.Decoder(list[tuple[int, int, int]]).decode
_numbers = msgspec.json.Decoder(list[int]).decode
_notes = msgspec.json.Decoder(list[tuple[str, str, float]]).decode
_letters = msgspec.json.Decoder(list[DeadLetter]).decode


def put(connection: apsw.Connection, changes: Sequence[MetadataChange], *, now: float) -> Stored:
    """Append the changes, but for those whose change_id is pending, and see to their targets."""
    newest, newest_target = connection.execute(_PUT["newest"]).get, connection.execute(_PUT["newest_target"]).get
    remaining = iter(changes)
    added = 0
    while chunk := [
        (change.completion_id, change.change_id, change.mode, dict(change.metadata))
        for change in islice(remaining, _PUT_CHUNK)
    ]:
        given = {"changes": json_text(chunk), "now": now}
        connection.execute(_PUT["open"], given)
        connection.execute(_PUT["append"], given)
        added += connection.changes()
    connection.execute(_PUT["count"], {"newest": newest})
    if added < len(changes):
        connection.execute(_PUT["forget_empty"], {"newest_target": newest_target})
    return Stored(added, len(changes) - added)


class _Due(msgspec.Struct, frozen=True, array_like=True):
    number: int
    completion_id: str
    attempts: int
    pending: int


_due = msgspec.json.Decoder(list[_Due]).decode


def claim(connection: apsw.Connection, limit: int, *, now: float, lease_seconds: float, owner: str) -> list[Claim]:
    """Lease the oldest due targets, under one new lease number."""
    due = _fitting(_due(connection.execute(_CLAIM["due"], {"now": now, "limit": limit}).get))
    if not due:
        return []
    targets = json_text([(target.number, target.completion_id) for target in due])
    lease = connection.execute(_CLAIM["next_lease"]).get
    connection.execute(
        _CLAIM["lease"], {"targets": targets, "lease": lease, "owner": owner, "visible_at": now + lease_seconds}
    )
    found = connection.execute(_CLAIM["changes"], {"targets": targets, "changes_per_claim": MAX_CHANGES_PER_CLAIM}).get
    claims = []
    attempts = {target.completion_id: target.attempts for target in due}
    for completion_id, group in groupby(_changes(found), key=lambda change: change.completion_id):
        changes = tuple(group)
        age_seconds = max(0.0, now - changes[0].enqueued_at)
        claims.append(Claim(completion_id, lease, attempts[completion_id], changes, age_seconds))
    return claims


def _fitting(due: list[_Due]) -> list[_Due]:
    """Cut off the targets whose changes would make the claim too large; the first one always fits."""
    changes = 0
    for position, target in enumerate(due):
        changes += min(target.pending, MAX_CHANGES_PER_CLAIM)
        if changes > _MAX_CHANGES_PER_CALL:
            return due[:position]
    return due


def extend(connection: apsw.Connection, claims: Sequence[Claim], *, visible_at: float) -> list[Claim]:
    """Move the deadline of the leases that hold; give the claims whose lease does not."""
    keys = _keys(claims)
    held = {position for position, _, _ in _held(connection.execute(_CLAIM["held"], {"claims": keys}).get)}
    if held:
        connection.execute(_CLAIM["extend"], {"claims": keys, "visible_at": visible_at})
    return [claim for position, claim in enumerate(claims) if position not in held]


def release(connection: apsw.Connection, claims: Sequence[Claim], *, now: float) -> None:
    """Give the claims back as they were."""
    connection.execute(_CLAIM["release"], {"claims": _keys(claims), "now": now})


def settle(connection: apsw.Connection, settlements: Sequence[Settlement], *, now: float) -> list[Settlement]:
    """Carry out the settlements whose lease holds; give the others."""
    keys = _keys(settlement.claim for settlement in settlements)
    found = _held(connection.execute(_CLAIM["held"], {"claims": keys}).get)
    held = {position: (target, pending) for position, target, pending in found}
    valid: dict[int, _Valid] = {}
    stale = []
    for position, settlement in enumerate(settlements):
        done = settlement.done()
        target, pending = held.get(position, (None, 0))
        if target is not None and target not in valid:  # of several words about one claim, the first counts
            valid[target] = _Valid(target, settlement, done, left=pending - len(done))
        else:
            stale.append(settlement)
    _remove_done(connection, valid.values(), now=now)
    _end_leases(connection, valid.values(), now=now)
    return stale


class _Valid(msgspec.Struct, frozen=True):
    """A settlement whose lease holds, the changes that it removes, and how many are left then."""

    target: int
    settlement: Settlement
    done: set[int]
    left: int


def _remove_done(connection: apsw.Connection, valid: Iterable[_Valid], *, now: float) -> None:
    done = [number for each in valid for number in each.done]
    if not done:
        return
    deaths = [
        (death.number, death.reason, death.attempts, death.status, storable(death.error), storable(death.request_id))
        for each in valid
        for death in each.settlement.dead
    ]
    if deaths:
        connection.execute(_SETTLE["bury"], {"deaths": json_text(deaths), "now": now})
    connection.execute(_SETTLE["remove"], {"numbers": json_text(done)})
    applied = sum(len(each.settlement.applied) for each in valid)
    unchanged = len(done) - applied - len(deaths)
    connection.execute(
        _SETTLE["count"],
        {"minute": int(now // 60), "applied": applied, "unchanged": unchanged, "dead": len(deaths)},
    )


def _end_leases(connection: apsw.Connection, valid: Iterable[_Valid], *, now: float) -> None:
    finished = [each.target for each in valid if not each.left]
    if finished:
        connection.execute(_SETTLE["finish"], {"targets": json_text(finished)})
    kept = [
        (
            each.target,
            now + each.settlement.delay_seconds,
            each.settlement.attempts,
            each.left,
            storable(each.settlement.error),
        )
        for each in valid
        if each.left
    ]
    if kept:
        connection.execute(_SETTLE["keep"], {"targets": json_text(kept)})


def next_due(connection: apsw.Connection) -> float | None:
    """Give the earliest visible_at."""
    visible_at: float | None = connection.execute(_STATUS["next_due"]).get
    return visible_at


@dataclass(frozen=True, slots=True)
class _Counts:
    pending: int
    in_flight: int
    waiting: int
    dead: int
    oldest_enqueued_at: float | None
    recently_done: int


_counts = msgspec.json.Decoder(_Counts).decode


def status(connection: apsw.Connection, *, now: float) -> QueueStatus:
    """Count what there is."""
    since_minute = int(now // 60) - RECENT_MINUTES + 1
    counts = _counts(connection.execute(_STATUS["counts"], {"now": now, "since_minute": since_minute}).get)
    oldest = counts.oldest_enqueued_at
    return QueueStatus(
        pending=counts.pending,
        in_flight=counts.in_flight,
        waiting=counts.waiting,
        dead=counts.dead,
        oldest_pending_seconds=None if oldest is None else max(0.0, now - oldest),
        recent_per_second=counts.recently_done / (now - since_minute * 60),
    )


def take_permits(
    connection: apsw.Connection, count: int, *, now: float, per_minute: float, ahead_seconds: float
) -> Grant:
    """Take permits of the rate that all workers share."""
    due_at = connection.execute(_BUDGET["due_at"]).get
    granted, due_at = grant(due_at, now, count, per_minute=per_minute, ahead_seconds=ahead_seconds)
    connection.execute(_BUDGET["keep"], {"due_at": due_at})
    return granted


def write_note(connection: apsw.Connection, name: str, text: str | None, *, now: float) -> None:
    """Keep the note, or remove it."""
    if text is None:
        connection.execute(_NOTE["remove"], {"name": name})
    else:
        connection.execute(_NOTE["write"], {"name": name, "text": text, "now": now})


def read_notes(connection: apsw.Connection, *, now: float) -> dict[str, Note]:
    """Give all notes by name."""
    found = _notes(connection.execute(_NOTE["all"]).get)
    return {name: Note(text, max(0.0, now - written_at)) for name, text, written_at in found}


def newest_dead_letter(connection: apsw.Connection) -> int:
    """Give the last letter's number, 0 when there is none."""
    number: int = connection.execute(_DEAD["newest"]).get
    return number


def dead_letters(
    connection: apsw.Connection, selection: DeadSelection, *, after: int
) -> tuple[list[DeadLetter], int | None]:
    """Give one page of the letters that match, beginning behind the number `after`, and where the page ends."""
    numbers = _selected(connection, selection, after=after, until=_LAST, limit=PAGE)
    letters = _letters(connection.execute(_DEAD["letters"], {"numbers": json_text(numbers)}).get)
    return letters, numbers[-1] if numbers else None


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one transaction did to dead letters.

    Args:
        last: the last letter's number; None when there was none left.
        done: how many were retried or purged.
        kept: how many had to stay.
    """

    last: int | None
    done: int
    kept: int


def retry_dead(connection: apsw.Connection, selection: DeadSelection, *, after: int, until: int, now: float) -> Bulk:
    """Make the next letters that match changes again, but for those whose change_id is pending."""
    numbers = _selected(connection, selection, after=after, until=until, limit=BULK)
    if not numbers:
        return Bulk(None, 0, 0)
    newest = connection.execute(_PUT["newest"]).get
    revivable = connection.execute(_DEAD["revivable"], {"numbers": json_text(numbers)}).get
    connection.execute(_DEAD["open"], {"numbers": revivable, "now": now})
    connection.execute(_DEAD["revive"], {"numbers": revivable, "now": now})
    connection.execute(_PUT["count"], {"newest": newest})
    connection.execute(_DEAD["delete"], {"numbers": revivable})
    retried = connection.changes()
    return Bulk(numbers[-1], retried, len(numbers) - retried)


def purge_dead(connection: apsw.Connection, selection: DeadSelection, *, after: int, until: int) -> Bulk:
    """Delete the next letters that match."""
    numbers = _selected(connection, selection, after=after, until=until, limit=BULK)
    if not numbers:
        return Bulk(None, 0, 0)
    connection.execute(_DEAD["delete"], {"numbers": json_text(numbers)})
    return Bulk(numbers[-1], connection.changes(), 0)


_LAST = 2**63 - 1  # SQLite's largest integer


def _selected(
    connection: apsw.Connection, selection: DeadSelection, *, after: int, until: int, limit: int
) -> list[int]:
    if selection.numbers is not None:
        way = "by_number"
    elif selection.completion_id is not None:
        way = "by_completion"
    elif selection.reason is not None:
        way = "by_reason"
    else:
        way = "all"
    conditions = {
        "numbers": None if selection.numbers is None else json_text(list(selection.numbers)),
        "completion_id": selection.completion_id,
        "reason": selection.reason,
        "after": after,
        "until": until,
        "limit": limit,
    }
    return _numbers(connection.execute(_DEAD[way], conditions).get)


def _keys(claims: Iterable[Claim]) -> str:
    return json_text([(claim.completion_id, claim.lease) for claim in claims])
