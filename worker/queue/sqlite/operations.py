"""The queue's operations, as functions of a connection, each run in the writer's thread and transaction.

The event loop's thread is always busy with Python, so a statement's step that returns to Python may wait milliseconds
for the interpreter's lock. So each operation is a few statements over sets, for any size of batch, with one JSON text
as input and one as output.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import apsw
import msgspec

from worker.changes import MetadataChange
from worker.queue.batch import Terms
from worker.queue.coordination import Note
from worker.queue.pending import (
    LONGEST_SECONDS,
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CALL,
    MAX_CHANGES_PER_CLAIM,
    Claim,
    LeaseHolder,
    Place,
    QueuedChange,
    QueueStatus,
    Settlement,
    Stored,
)
from worker.queue.quota import Grant, grant
from worker.queue.rows import (
    MIDDLE_STEPS,
    RECENT_TARGETS,
    Counts,
    Put,
    claims_of,
    conflicts_among,
    ended,
    first_words,
    microseconds,
    recent_since,
    status_of,
)
from worker.queue.sqlite import batches, confirmed, remembered
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

# A later due time comes from a wrong clock.
_FURTHEST_SECONDS = 2 * LONGEST_SECONDS
# The changes of one statement of `put`: their JSON text, and the pages before they were changed, are held in memory.
_PUT_CHUNK = 500

_PUT = read_statements(__package__, "put")
_CLAIM = read_statements(__package__, "claim")
_SETTLE = read_statements(__package__, "settle")
_STATUS = read_statements(__package__, "status")
_QUOTA = read_statements(__package__, "quota")
_NOTE = read_statements(__package__, "note")

_suspects = msgspec.json.Decoder(list[tuple[int, str, str, str]]).decode
_elsewhere = msgspec.json.Decoder(list[tuple[int, str | None]]).decode
_changes = msgspec.json.Decoder(list[QueuedChange]).decode
_columns = msgspec.json.Decoder(tuple[list[int | None], list[int | None], list[int | None], list[int | None]]).decode
_notes = msgspec.json.Decoder(list[tuple[str, str, float]]).decode
_counts = msgspec.json.Decoder(Counts).decode
_leases = msgspec.json.Decoder(list[tuple[str, int, int, int, float]]).decode


def put(connection: apsw.Connection, now: Moment, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
    """Append the changes, except those whose change_id is pending or was settled, and update their targets."""
    newest, newest_target = connection.execute(_PUT["newest"]).get, connection.execute(_PUT["newest_target"]).get
    batch = None if terms.batch is None else batches.opened(connection, now, terms.batch)
    put, last = Put(terms.batch), newest
    for start in range(0, len(changes), _PUT_CHUNK):
        chunk = changes[start : start + _PUT_CHUNK]
        settled = remembered.settled(connection, [each.change_id for each in chunk])
        put.settled |= {start + position for position in settled}
        fresh = [each for position, each in enumerate(chunk) if position not in settled] if settled else chunk
        completion_ids = json_text([each.completion_id for each in fresh])
        connection.execute(_PUT["open"], {"completion_ids": completion_ids, "now": now.queue})
        given = {"changes": _texts(fresh), "now": now.queue, "batch": batch, "urgent": terms.urgent}
        connection.execute(_PUT["append"], given)
        appended = connection.changes()
        put.added += appended
        if appended:
            connection.execute(_PUT["count"], {"newest": last, "urgent": terms.urgent})
            last = connection.last_insert_rowid()
        if appended < len(fresh):
            known = {"changes": _texts(chunk) if settled else given["changes"], "batch": batch}
            suspects = _suspects(connection.execute(_PUT["suspects"], known).get)
            put.conflicts += [start + position for position in conflicts_among(chunk, suspects)]
            elsewhere = _elsewhere(connection.execute(_PUT["elsewhere"], known).get)
            put.elsewhere |= {start + position: name for position, name in elsewhere}
    if batch is not None and put.added:
        batches.grow(connection, batch, put.added, newest)
    if put.added < len(changes):
        connection.execute(_PUT["forget_empty"], {"newest_target": newest_target})
    return put.of(len(changes))


def conflicts(connection: apsw.Connection, _now: Moment, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
    """Return the positions of changes that differ from the pending change with the same change_id."""
    found: list[int] = []
    for start in range(0, len(changes), _PUT_CHUNK):
        chunk = changes[start : start + _PUT_CHUNK]
        suspects = _suspects(connection.execute(_PUT["suspects"], {"changes": _texts(chunk)}).get)
        found += [start + position for position in conflicts_among(chunk, suspects)]
    return tuple(found)


def _texts(changes: Sequence[MetadataChange]) -> str:
    return json_text([(each.completion_id, each.change_id, each.mode, each.metadata, each.as_of) for each in changes])


def claim(
    connection: apsw.Connection, now: Moment, limit: int, *, lease_seconds: float, owner: str, place: Place
) -> list[Claim]:
    """Lease due targets, under one new lease number."""
    changes = _due(connection, now, limit, place)
    completion_ids = {change.completion_id for change in changes}
    if len(completion_ids) < limit and _heal(connection, now):
        changes = _due(connection, now, limit, place)
        completion_ids = {change.completion_id for change in changes}
    if not changes:
        return []
    lease: int = connection.execute(_CLAIM["next_lease"], {"now_us": microseconds(now.queue)}).get
    claims = claims_of(dict.fromkeys(completion_ids, lease), changes, now=now.unix)
    connection.execute(
        _CLAIM["lease"],
        {
            "changes": _first_changes(claims),
            "lease": lease,
            "owner": storable(owner),
            "visible_at": now.queue + lease_seconds,
        },
    )
    return remembered.attach(connection, claims)


def _heal(connection: apsw.Connection, now: Moment) -> bool:
    """Make due what a wrong clock has put off for years; return whether there was any.

    A claim that finds enough can do without. A worker that is never short of work does it with each heartbeat.
    """
    connection.execute(_CLAIM["heal"], {"now": now.queue, "furthest": now.queue + _FURTHEST_SECONDS})
    return connection.changes() > 0


def _due(connection: apsw.Connection, now: Moment, limit: int, place: Place) -> list[QueuedChange]:
    """Return the changes of due targets, as many as one call may carry, and the next one if there are more."""
    terms = {
        "now": now.queue,
        "limit": limit,
        "recent": RECENT_TARGETS,
        "steps": MIDDLE_STEPS,
        "changes_per_claim": MAX_CHANGES_PER_CLAIM,
        "changes": MAX_CHANGES_PER_CALL + 1,
        "bytes": MAX_BYTES_PER_CALL,
        "ahead": now.ahead,
    }
    return _changes(_only(connection.execute(_CLAIM[place], terms)))


def extend(connection: apsw.Connection, now: Moment, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
    """Extend the valid leases; return the claims whose lease is lost."""
    _heal(connection, now)
    targets, leases, _, _ = _targets(connection, claims)
    held = [target for claim, target, lease in zip(claims, targets, leases, strict=True) if lease == claim.lease]
    if held:
        terms = {"targets": json_text(held), "visible_at": now.queue + lease_seconds}
        connection.execute(_CLAIM["extend"], terms)
    return [claim for claim, lease in zip(claims, leases, strict=True) if lease != claim.lease]


def _targets(connection: apsw.Connection, claims: Iterable[Claim]) -> tuple[list[int | None], ...]:
    """Return number, lease, pending changes and urgency of each claim's target, as columns."""
    return _columns(_only(connection.execute(_CLAIM["targets"], {"changes": _first_changes(claims)})))


def _only(cursor: apsw.Cursor) -> str:
    """Return the only value. To look for a second one, as `get` does, would give the interpreter's lock away again."""
    row: tuple[str] | None = cursor.fetchone()
    assert row is not None  # noqa: S101 -- an aggregate has a row
    return row[0]


def _first_changes(claims: Iterable[Claim]) -> str:
    return json_text([claim.changes[0].number for claim in claims])


def release(connection: apsw.Connection, now: Moment, claims: Sequence[Claim]) -> None:
    """Release the claims unchanged."""
    connection.execute(_CLAIM["release"], {"claims": _keys(claims), "now": now.queue})


def settle(
    connection: apsw.Connection, now: Moment, settlements: Sequence[Settlement], *, keep_seconds: float, remember: bool
) -> tuple[list[Settlement], bool]:
    """Apply the settlements whose lease holds; return the others, and whether the log lost young rows."""
    for settlement in settlements:
        settlement.check()  # raises before anything is changed
    held, pending, urgent = dict[int, int](), dict[int, int](), set[int]()
    columns = _targets(connection, [settlement.claim for settlement in settlements])
    for position, (settlement, target, lease, changes, is_urgent) in enumerate(zip(settlements, *columns, strict=True)):
        if target is not None and lease == settlement.claim.lease:
            held[position] = target
            pending[target] = changes or 0
            if is_urgent:
                urgent.add(target)
    valid, stale = first_words(settlements, held)
    done = list[int]()
    for target, settlement in valid.items():
        numbers = settlement.done()
        pending[target] -= len(numbers)
        done += numbers
    if done:
        _remove_done(connection, now, valid.values(), done)
    _end_leases(connection, now, valid, left=pending, urgent=urgent)
    if remember:
        remembered.keep(connection, now, valid.values())
    return stale, keep_seconds > 0 and confirmed.append(connection, now.queue, valid.values(), keep_seconds)


def _remove_done(connection: apsw.Connection, now: Moment, valid: Collection[Settlement], done: Sequence[int]) -> None:
    """Remove these changes and count them; those that died become dead letters."""
    deaths = [death.row() for settlement in valid if settlement.dead for death in settlement.dead]
    if deaths:
        connection.execute(_SETTLE["bury"], {"deaths": json_text(deaths), "unix": now.unix, "ahead": now.ahead})
    connection.execute(_SETTLE["remove"], {"numbers": json_text(done)})
    applied, unchanged, dead, superseded = ended(valid)
    counts = {"applied": applied, "unchanged": unchanged, "dead": dead, "superseded": superseded, "withdrawn": 0}
    connection.execute(_SETTLE["count"], {"minute": int(now.unix // 60), **counts})
    batches.end(connection, now, valid)


def _end_leases(
    connection: apsw.Connection,
    now: Moment,
    valid: Mapping[int, Settlement],
    *,
    left: Mapping[int, int],
    urgent: Collection[int],
) -> None:
    """Delete targets without changes, and set the due time of the others.

    Args:
        valid: by target.
        left: how many changes each target has still.
        urgent: the targets that were urgent.
    """
    finished, kept = [], []
    for target, settlement in valid.items():
        if left[target]:
            kept.append((target, now.queue + settlement.delay_seconds, left[target]))
        else:
            finished.append(target)
    if finished:
        connection.execute(_SETTLE["finish"], {"targets": json_text(finished)})
    if kept:
        connection.execute(_SETTLE["keep"], {"targets": json_text(kept)})
        if urgent:
            connection.execute(_SETTLE["calm"], {"targets": json_text([each for each, _, _ in kept if each in urgent])})
        noted = [each for settlement in valid.values() for each in settlement.trial_rows()]
        if noted:
            connection.execute(_SETTLE["keep_trials"], {"trials": json_text(noted)})


def next_due_seconds(connection: apsw.Connection, now: Moment) -> float | None:
    """Return the seconds until the earliest visible_at; never more than a valid delay."""
    visible_at: float | None = connection.execute(_STATUS["next_due"]).get
    if visible_at is None:
        return None
    return visible_at - now.queue if visible_at <= now.queue + _FURTHEST_SECONDS else 0.0


def status(connection: apsw.Connection, now: Moment) -> QueueStatus:
    """Count the changes."""
    terms = {"now": now.queue, "ahead": now.ahead, "since_minute": recent_since(now.unix)}
    return status_of(_counts(connection.execute(_STATUS["counts"], terms).get), now=now.unix)


def leases(connection: apsw.Connection, now: Moment) -> list[LeaseHolder]:
    """Return the leases by worker."""
    found = _leases(connection.execute(_STATUS["leases"], {"now": now.queue}).get)
    return [
        LeaseHolder(owner, completions, changes, since_us / 1_000_000 + now.ahead, until + now.ahead)
        for owner, completions, changes, since_us, until in found
    ]


def take_quota(
    connection: apsw.Connection, now: Moment, requests: int, *, per_minute: float, ahead_seconds: float
) -> Grant:
    """Take from the shared quota."""
    due_at = connection.execute(_QUOTA["due_at"]).get
    granted, due_at = grant(due_at, now.queue, requests, per_minute=per_minute, ahead_seconds=ahead_seconds)
    connection.execute(_QUOTA["keep"], {"due_at": due_at})
    return granted


def write_note(connection: apsw.Connection, now: Moment, name: str, text: str | None) -> None:
    """Write the note, or remove it."""
    note = {"name": storable(name), "text": storable(text), "now": now.queue}
    connection.execute(_NOTE["remove" if text is None else "write"], note)


def read_note(connection: apsw.Connection, now: Moment, name: str) -> Note | None:
    """Return the note with this name."""
    found: tuple[str, float] | None = connection.execute(_NOTE["one"], {"name": storable(name)}).get
    return None if found is None else Note.of(found[0], now.queue - found[1])


def read_notes(connection: apsw.Connection, now: Moment) -> dict[str, Note]:
    """Return all notes by name."""
    found = _notes(connection.execute(_NOTE["all"]).get)
    return {name: Note.of(text, now.queue - written_at) for name, text, written_at in found}


def _keys(claims: Iterable[Claim]) -> str:
    return json_text([(claim.completion_id, claim.lease) for claim in claims])
