"""What workers and producers do to the queue, as functions of a connection: each within one transaction.

Each is a handful of statements over sets, whatever the size of the batch. Whoever waits for locks takes them in the
order of the completions' ids, so that two who need the same ones wait for each other, and not both.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import asyncpg

from worker.changes import MetadataChange
from worker.queue.base import (
    MAX_CHANGES_PER_CLAIM,
    RECENT_MINUTES,
    Claim,
    Note,
    QueuedChange,
    QueueStatus,
    Settlement,
    Stored,
    json_text,
    storable,
)
from worker.queue.permits import Grant, grant
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.statements import statements

# Of one put, what a statement takes.
_PUT_CHUNK = 5_000
# A claim ends early where it would carry more changes than this.
_MAX_CHANGES_PER_CALL = 10_000
# A target without changes stays as long as a producer's transaction is open that may bring some; how often to look.
_EMPTY_TARGET_SECONDS = 1.0

_PUT = statements("put")
_CLAIM = statements("claim")
_SETTLE = statements("settle")
_STATUS = statements("status")
_BUDGET = statements("budget")
_NOTE = statements("note")


async def put(connection: Connection, changes: Sequence[MetadataChange]) -> Stored:
    """Append the changes, but for those whose change_id is pending, and see to their targets."""
    completion_ids = list(dict.fromkeys(change.completion_id for change in changes))
    await append_to(connection, completion_ids)
    added = 0
    for start in range(0, len(changes), _PUT_CHUNK):
        chunk = changes[start : start + _PUT_CHUNK]
        result = await connection.execute(
            _PUT["append"],
            [change.completion_id for change in chunk],
            [change.change_id for change in chunk],
            [change.mode for change in chunk],
            [json_text(dict(change.metadata)) for change in chunk],
        )
        added += _row_count(result)
    if added < len(changes):
        await forget_empty(connection, completion_ids)
    return Stored(added, len(changes) - added)


async def append_to(connection: Connection, completion_ids: Sequence[str]) -> None:
    """Wait for our turn to append changes to these completions, and make sure that they have targets."""
    await connection.execute(_PUT["begin"], completion_ids)


async def forget_empty(connection: Connection, completion_ids: Sequence[str]) -> None:
    """Remove the targets that were made for changes that were not stored in the end."""
    await connection.execute(_SETTLE["finish"], completion_ids)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took.

    Args:
        oldest: the earliest visible_at that it met; None when it met nothing.
        is_full: whether there may be more that is due.
    """

    claims: list[Claim]
    oldest: datetime | None
    is_full: bool


async def claim(
    connection: Connection, limit: int, *, floor: datetime | None, lease_seconds: float, owner: str
) -> Claimed:
    """Lease the oldest due targets from the floor on."""
    leased = await connection.fetch(_CLAIM["lease"], limit, floor, lease_seconds, storable(owner))
    leased.sort(key=lambda row: row["was_visible_at"])
    if not leased:
        return Claimed([], None, is_full=False)
    found = await connection.fetch(
        _CLAIM["changes"],
        [row["number"] for row in leased],
        [row["completion_id"] for row in leased],
        MAX_CHANGES_PER_CLAIM,
        _MAX_CHANGES_PER_CALL,
    )
    changes_by_completion = {
        completion_id: tuple([QueuedChange(*row) for row in rows])
        for completion_id, rows in groupby(found, key=lambda row: row["completion_id"])
    }
    claims = [
        Claim(
            row["completion_id"],
            row["lease"],
            row["attempts"],
            changes,
            age_seconds=max(0.0, row["claimed_at"] - changes[0].enqueued_at),
        )
        for row in leased
        if (changes := changes_by_completion.get(row["completion_id"]))
    ]
    if others := [row for row in leased if row["completion_id"] not in changes_by_completion]:
        await _put_back(connection, others)
    return Claimed(claims, leased[0]["was_visible_at"], is_full=len(leased) == limit)


async def _put_back(connection: Connection, leased: Sequence[asyncpg.Record]) -> None:
    """Give up targets whose changes would have been too many for one claim, or that have none."""
    finished = await _finish(connection, [row["completion_id"] for row in leased])
    kept = [row for row in leased if row["completion_id"] not in finished]
    await connection.execute(
        _CLAIM["put_back"],
        [row["number"] for row in kept],
        [row["was_visible_at"] for row in kept],
        _EMPTY_TARGET_SECONDS,
    )


async def extend(connection: Connection, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
    """Move the deadline of the leases that hold; give the claims whose lease does not."""
    held = {row["position"] for row in await connection.fetch(_CLAIM["extend"], *_keys(claims), lease_seconds)}
    return [claim for position, claim in enumerate(claims, 1) if position not in held]


async def release(connection: Connection, claims: Sequence[Claim]) -> None:
    """Give the claims back as they were."""
    await connection.execute(_CLAIM["release"], *_keys(claims))


async def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[Settlement]:
    """Carry out the settlements whose lease holds; give the others."""
    done = [settlement.done() for settlement in settlements]
    keys = _keys([settlement.claim for settlement in settlements])
    held = {row["position"]: row["number"] for row in await connection.fetch(_SETTLE["hold"], *keys)}
    valid: dict[int, Settlement] = {}
    removed: list[int] = []
    stale = []
    for position, (settlement, numbers) in enumerate(zip(settlements, done, strict=True), 1):
        target = held.get(position)
        if target is not None and target not in valid:  # of several words about one claim, the first counts
            valid[target] = settlement
            removed += numbers
        else:
            stale.append(settlement)
    await _remove(connection, valid.values(), removed)
    await _end_leases(connection, valid)
    await _count(connection, valid.values())
    return stale


async def _remove(connection: Connection, valid: Iterable[Settlement], numbers: Sequence[int]) -> None:
    deaths = [death for settlement in valid for death in settlement.dead]
    if deaths:
        await connection.execute(
            _SETTLE["bury"],
            [death.number for death in deaths],
            [death.reason for death in deaths],
            [death.attempts for death in deaths],
            [death.status for death in deaths],
            [storable(death.error) for death in deaths],
            [storable(death.request_id) for death in deaths],
        )
    if numbers:
        await connection.execute(_SETTLE["remove"], numbers)


async def _end_leases(connection: Connection, valid: dict[int, Settlement]) -> None:
    """Let the targets go that have no changes left, and tell when the others are due."""
    finished = await _finish(
        connection,
        [
            settlement.claim.completion_id
            for settlement in valid.values()
            if len(settlement.done()) == len(settlement.claim.changes)
        ],
    )
    kept = {target: each for target, each in valid.items() if each.claim.completion_id not in finished}
    if kept:
        await connection.execute(
            _SETTLE["keep"],
            list(kept),
            [settlement.delay_seconds for settlement in kept.values()],
            [settlement.attempts for settlement in kept.values()],
            [storable(settlement.error) for settlement in kept.values()],
        )


async def _finish(connection: Connection, completion_ids: Collection[str]) -> set[str]:
    """Delete those of our targets that have no changes and will have none; give their completions."""
    if not completion_ids:
        return set()
    shut = await connection.fetch(_SETTLE["shut"], list(completion_ids))
    # A statement of its own: it sees what was committed before they were shut.
    finished = await connection.fetch(_SETTLE["finish"], [row["completion_id"] for row in shut])
    return {row["completion_id"] for row in finished}


async def _count(connection: Connection, valid: Collection[Settlement]) -> None:
    """Add to the history: last, since the row that others wait for is ours until the commit."""
    applied = sum(len(settlement.applied) for settlement in valid)
    unchanged = sum(len(settlement.unchanged) for settlement in valid)
    dead = sum(len(settlement.dead) for settlement in valid)
    if applied or unchanged or dead:
        await connection.execute(_SETTLE["count"], applied, unchanged, dead)


async def next_due_seconds(connection: Connection) -> float | None:
    """Give the seconds until the earliest visible_at."""
    seconds: float | None = await connection.fetchval(_STATUS["next_due"])
    return seconds


async def status(connection: Connection) -> QueueStatus:
    """Count what there is."""
    await connection.execute(_STATUS["plan_freely"])
    counts = dict((await connection.fetch(_STATUS["counts"], RECENT_MINUTES))[0])
    oldest: float | None = counts.pop("oldest_pending_seconds")
    return QueueStatus(**counts, oldest_pending_seconds=None if oldest is None else max(0.0, oldest))


async def take_permits(connection: Connection, count: int, *, per_minute: float, ahead_seconds: float) -> Grant:
    """Take permits of the rate that all workers share."""
    found = await connection.fetchrow(_BUDGET["lock"])
    assert found is not None  # noqa: S101 -- the migration put the row there
    granted, due_at = grant(found["due_at"], found["now"], count, per_minute=per_minute, ahead_seconds=ahead_seconds)
    await connection.execute(_BUDGET["keep"], due_at)
    return granted


async def write_note(connection: Connection, name: str, text: str | None) -> None:
    """Keep the note, or remove it."""
    if text is None:
        await connection.execute(_NOTE["remove"], name)
    else:
        await connection.execute(_NOTE["write"], name, text)


async def read_notes(connection: Connection) -> dict[str, Note]:
    """Give all notes by name."""
    found = await connection.fetch(_NOTE["all"])
    return {row["name"]: Note(row["text"], max(0.0, row["age_seconds"])) for row in found}


def _keys(claims: Sequence[Claim]) -> tuple[list[str], list[int]]:
    return [claim.completion_id for claim in claims], [claim.lease for claim in claims]


def _row_count(result: str) -> int:
    """The number at the end of what the server says it did, such as ``INSERT 0 5``."""
    return int(result.rpartition(" ")[2])
