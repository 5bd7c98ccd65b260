"""Enqueue, claim and settle, as functions of a connection, each within one transaction.

Each runs a handful of statements over sets, for a batch of any size. Locks are taken in the order of completion ids, so
that no two transactions wait for each other.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, assert_never

import asyncpg
import msgspec

from worker.changes import MetadataChange
from worker.queue.batch import Terms, ends_by_batch
from worker.queue.confirmed import LogRow
from worker.queue.pending import (
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
from worker.queue.postgres import batches, confirmed, remembered
from worker.queue.postgres.confirmed import Appended, LogIndexWithGaps
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.floor import Look
from worker.queue.quota import Grant, grant
from worker.queue.rows import (
    MIDDLE_STEPS,
    RECENT_MINUTES,
    RECENT_TARGETS,
    Counts,
    Put,
    claims_of,
    conflicts_among,
    ended,
    first_words,
    status_of,
)
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

# Changes that one statement of a put takes.
_PUT_CHUNK = 5_000
_USUAL = Terms()
# A target without changes stays while a producer's transaction may add some to it. How often to look.
_EMPTY_TARGET_SECONDS = 1.0

# Rows of one table. To count more would take too long for a person who waits.
_MOST_COUNTED = 1_000_000

_PUT = read_statements(__package__, "put")
_CLAIM = read_statements(__package__, "claim")
_LEASE, _LEASE_URGENT = (_CLAIM["lease"].format(kind=kind) for kind in ("NOT urgent", "urgent"))
_SETTLE = read_statements(__package__, "settle")
_STATUS = read_statements(__package__, "status")
_QUOTA = read_statements(__package__, "quota")


async def put(connection: Connection, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
    """Append the changes, except those whose change_id is pending or settled, and mark or remove their targets."""
    batch, settled = await _begin(connection, changes, terms)
    positions = [position for position, change in enumerate(changes) if change.change_id not in settled]
    fresh = [changes[position] for position in positions] if settled else changes
    put = Put(terms.batch, settled=set(range(len(changes))).difference(positions))
    for start in range(0, len(fresh), _PUT_CHUNK):
        chunk = fresh[start : start + _PUT_CHUNK]
        columns = _columns(chunk)
        appended = await _append(connection, chunk, columns, batch, urgent=terms.urgent)
        put.added += appended
        if appended < len(chunk):
            suspects = await connection.fetch(_PUT["suspects"], *columns, batch)
            if any(row["completion_id"] is None for row in suspects):  # now it can be stored, in its place
                raise asyncpg.SerializationError("a change_id was pending, and is no longer")
            put.conflicts += [positions[start + place] for place in _conflicts_among(chunk, suspects)]
            found = {positions[start + row["position"]]: row["batch"] for row in suspects if row["is_elsewhere"]}
            put.elsewhere |= found
    if put.added:
        await check_none_settled(connection, [each.change_id for each in fresh if each.change_id is not None])
    if (put.added and terms.urgent) or put.added < len(fresh):
        completion_ids = _completion_ids(fresh)
        if put.added and terms.urgent:
            await connection.execute(_PUT["hurry"], completion_ids)
        if put.added < len(fresh):
            await forget_empty(connection, completion_ids)
    return put.of(len(changes))


async def _begin(
    connection: Connection, changes: Sequence[MetadataChange], terms: Terms
) -> tuple[int | None, Collection[str]]:
    """Lock the completions to append the changes.

    Returns:
        the batch's number, and the change_ids that were settled lately.
    """
    if all(change.change_id is None for change in changes):
        return await append_to(connection, _completion_ids(changes), terms), ()
    completion_ids = [change.completion_id for change in changes]
    change_ids = [change.change_id for change in changes]
    row = await connection.fetchrow(_PUT["begin_named"], completion_ids, terms.urgent, terms.batch, change_ids)
    assert row is not None  # noqa: S101 -- it has no FROM
    return row["batch"], set(row["settled"])


def _completion_ids(changes: Iterable[MetadataChange]) -> list[str]:
    return list(dict.fromkeys(change.completion_id for change in changes))


async def _append(
    connection: Connection,
    changes: Sequence[MetadataChange],
    columns: Sequence[Sequence[str | None]],
    batch: int | None,
    *,
    urgent: bool,
) -> int:
    """Append the changes, except those whose change_id is pending; return how many were appended."""
    arguments = *columns, [change.as_of for change in changes], batch, urgent
    if batch is None:
        return _row_count(await connection.execute(_PUT["append"], *arguments))
    return await connection.fetchval(_PUT["append_to_batch"], *arguments) or 0


async def check_none_settled(connection: Connection, change_ids: Sequence[str]) -> None:
    """Let the transaction begin again if one of these was settled meanwhile: it was pending at the first look.

    Raises:
        asyncpg.SerializationError: one of them was settled.
    """
    if await remembered.settled_among(connection, change_ids):
        raise asyncpg.SerializationError("a change_id was pending, and is settled now")


async def conflicts(connection: Connection, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
    """Return the positions of changes that differ from the pending change with the same change_id."""
    found: list[int] = []
    for start in range(0, len(changes), _PUT_CHUNK):
        chunk = changes[start : start + _PUT_CHUNK]
        suspects = await connection.fetch(_PUT["suspects"], *_columns(chunk), None)
        pending = [row for row in suspects if row["completion_id"] is not None]
        found += [start + position for position in _conflicts_among(chunk, pending)]
    return tuple(found)


def _conflicts_among(changes: Sequence[MetadataChange], suspects: Sequence[asyncpg.Record]) -> Iterable[int]:
    """Return the positions of changes that differ from the pending change, by the rows."""
    return conflicts_among(
        changes, [(row["position"], row["completion_id"], row["mode"], row["metadata"]) for row in suspects]
    )


def _columns(changes: Sequence[MetadataChange]) -> tuple[list[str], list[str | None], list[str], list[str]]:
    """The columns of the changes, for put.sql."""
    return (
        [change.completion_id for change in changes],
        [change.change_id for change in changes],
        [change.mode for change in changes],
        [json_text(change.metadata) for change in changes],
    )


async def append_to(connection: Connection, completion_ids: Sequence[str], terms: Terms = _USUAL) -> int | None:
    """Lock these completions to append changes to them, and make sure that they have targets.

    Returns:
        the number of the batch, which is created if there is none; None without a batch.
    """
    number: int | None = await connection.fetchval(_PUT["begin"], completion_ids, terms.urgent, terms.batch)
    return number


async def forget_empty(connection: Connection, completion_ids: Sequence[str]) -> None:
    """Remove targets that were made for changes that were not stored."""
    await connection.execute(_SETTLE["finish"], completion_ids)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of a claim.

    Args:
        look: what it saw; None if it did not look from the floor on.
        now: Unix time, seconds, by the server's clock.
        news: rows of the log that were read.
    """

    claims: list[Claim]
    look: Look | None
    now: float = 0.0
    news: Sequence[LogRow] = ()


async def claim(
    connection: Connection,
    limit: int,
    *,
    floor: datetime | None,
    lease_seconds: float,
    owner: str,
    place: Place = "oldest",
    log: LogIndexWithGaps | None = None,
    confirmed_seconds: float = 0.0,
) -> Claimed:
    """Lease due targets from the floor on.

    Args:
        log: the log of confirmed metadata; None to leave it out.
    """
    leased, look = await _lease(connection, limit, floor, (lease_seconds, storable(owner)), place)
    if not leased:
        return Claimed([], look)
    found = await connection.fetch(
        _CLAIM["changes"],
        [each.number for each in leased],
        [each.completion_id for each in leased],
        MAX_CHANGES_PER_CLAIM,
        MAX_CHANGES_PER_CALL + 1,
        MAX_BYTES_PER_CALL,
    )
    leases = {each.completion_id: each.lease for each in leased}
    now = leased[0].claimed_at
    claims = claims_of(leases, [QueuedChange(*row) for row in found], now=now)
    claims = await remembered.attach_newest(connection, claims)
    claimed = {each.completion_id for each in claims}
    if others := [each for each in leased if each.completion_id not in claimed]:
        await _put_back(connection, others)
        if look is not None:  # they are due as before: the look ends where these begin
            look = replace(look, is_full=True, oldest=others[0].was_visible_at)
    news: Sequence[LogRow] = ()
    if log is not None:
        claims, news = await confirmed.attach(connection, claims, log, now=now, seconds=confirmed_seconds)
    return Claimed(claims, look, now=now, news=news)


class Leased(NamedTuple):
    """A target that is leased now, and its state before."""

    number: int
    completion_id: str
    lease: int
    was_visible_at: datetime
    was_lease: int | None
    claimed_at: float


async def _lease(
    connection: Connection, limit: int, floor: datetime | None, terms: tuple[float, str], place: Place
) -> tuple[list[Leased], Look | None]:
    """Lease targets; return them, the oldest first, and what was seen.

    Args:
        terms: the lease in seconds, and its owner.
    """
    match place:
        case "oldest" | "urgent":
            *rows, seen = await connection.fetch(_LEASE if place == "oldest" else _LEASE_URGENT, limit, floor, *terms)
            new = {row["number"]: row for row in rows}
            leased = [
                Leased(number, row["completion_id"], row["lease"], was_visible_at, was_lease, seen["claimed_at"])
                for number, was_visible_at, was_lease in zip(
                    seen["numbers"], seen["were_visible_at"], seen["were_leases"], strict=True
                )
                if (row := new.get(number)) is not None
            ]
            return leased, _look(seen, leased, limit)
        case "newest":
            found = await connection.fetch(_CLAIM["newest"], floor, RECENT_TARGETS)
        case "middle":
            found = await connection.fetch(_CLAIM["middle"], floor, MIDDLE_STEPS)
        case _:
            assert_never(place)
    one = await connection.fetch(_CLAIM["lease_one"], [row["number"] for row in found], *terms)
    return [Leased(*row) for row in one], None


def _look(row: asyncpg.Record, leased: Sequence[Leased], limit: int) -> Look:
    number, horizon, *running = row["look"]
    oldest = leased[0].was_visible_at if leased else None
    is_full = len(leased) == limit
    return Look(oldest, is_full, row["looked_at"], number, horizon, frozenset(running))


async def _put_back(connection: Connection, leased: Sequence[Leased]) -> None:
    """Give up targets without changes, and targets whose changes exceed the limits of one claim."""
    finished = await finish(connection, [each.completion_id for each in leased])
    kept = [each for each in leased if each.completion_id not in finished]
    before = {str(each.number): (each.was_visible_at.isoformat(), each.was_lease) for each in kept}
    await connection.execute(
        _CLAIM["put_back"], [each.number for each in kept], json_text(before), _EMPTY_TARGET_SECONDS
    )


async def extend(connection: Connection, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
    """Move the deadline of the leases that hold; return the claims whose lease does not."""
    held = {row["position"] for row in await connection.fetch(_CLAIM["extend"], *_keys(claims), lease_seconds)}
    await connection.execute(_CLAIM["heal"])  # a worker that is never short of work does not ask what is due next
    return [claim for position, claim in enumerate(claims) if position not in held]


async def release(connection: Connection, claims: Sequence[Claim]) -> None:
    """Give the claims back unchanged."""
    await connection.execute(_CLAIM["release"], *_keys(claims))


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of a settle.

    Args:
        valid, stale: the settlements whose lease held, which are carried out, and the others.
        appended: the result of logging the confirmed metadata.
        transaction: the number of the transaction; None if no settlement was valid.
    """

    valid: Collection[Settlement]
    stale: list[Settlement]
    appended: Appended
    transaction: str | None


async def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    *,
    keep_seconds: float = 0.0,
    look_from: int = 0,
    remember: bool = False,
) -> Settled:
    """Carry out the settlements whose lease holds."""
    for settlement in settlements:
        settlement.check()  # raises before anything is changed
    keys = _keys([settlement.claim for settlement in settlements])
    found = await connection.fetch(_CLAIM["hold"], *keys)
    valid, stale = first_words(settlements, {row["position"]: row["number"] for row in found})
    await _remove_done(connection, valid.values())
    await _end_leases(connection, valid)
    appended = Appended(look_from)
    if keep_seconds > 0:
        appended = await confirmed.append(connection, valid.values(), keep_seconds=keep_seconds, look_from=look_from)
    if remember:
        await remembered.remember(connection, valid.values())
    await _count(connection, valid.values())
    return Settled(valid.values(), stale, appended, found[0]["transaction"] if found else None)


async def was_committed(connection: Connection, transaction: str) -> bool:
    """Whether the transaction of this number was committed."""
    committed: bool = await connection.fetchval(_SETTLE["was_committed"], transaction)
    return committed


async def _remove_done(connection: Connection, valid: Iterable[Settlement]) -> None:
    deaths = [death.row() for settlement in valid for death in settlement.dead]
    if deaths:
        await connection.execute(_SETTLE["bury"], *zip(*deaths, strict=True))
    numbers = [number for settlement in valid for number in settlement.done()]
    if numbers:
        await connection.execute(_SETTLE["remove"], numbers)


async def _end_leases(connection: Connection, valid: dict[int, Settlement]) -> None:
    """Delete the targets without changes, and set when the others are due."""
    finished = await finish(
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
            json_text({str(number): settlement.delay_seconds for number, settlement in kept.items()}),
        )
        noted = {number: text for settlement in kept.values() for number, text in settlement.trial_rows()}
        if noted:
            texts = json_text({str(number): text for number, text in noted.items()})
            await connection.execute(_SETTLE["keep_trials"], list(noted), texts)


async def finish(connection: Connection, completion_ids: Collection[str]) -> set[str]:
    """Delete those of our targets that have no changes and cannot get any; return their completions."""
    if not completion_ids:
        return set()
    shut = await connection.fetch(_SETTLE["shut"], list(completion_ids))
    # A second statement, so that it sees what was committed before the completions were locked.
    finished = await connection.fetch(_SETTLE["finish"], [row["completion_id"] for row in shut])
    return {row["completion_id"] for row in finished}


async def _count(connection: Connection, valid: Collection[Settlement]) -> None:
    """Add to batches and history. This comes last, since others wait for these rows until the commit."""
    await batches.count(connection, ends_by_batch(valid), {})
    await count_in_history(connection, ended(valid))


async def count_in_history(connection: Connection, ends: tuple[int, int, int, int], withdrawn: int = 0) -> None:
    """Add ended changes to this minute: applied, unchanged, dead and superseded, and withdrawn."""
    if any(ends) or withdrawn:
        await connection.execute(_SETTLE["count"], *ends, withdrawn)


async def next_due_seconds(
    connection: Connection, floor: datetime | None, urgent_floor: datetime | None
) -> tuple[float | None, datetime]:
    """Return the seconds until the earliest visible_at from the floors on, and the time by the server's clock.

    What a clock that was ahead has put off for years is due now.
    """
    [row] = await connection.fetch(_STATUS["next_due"], floor, urgent_floor)
    if row["is_put_off"]:
        await connection.execute(_CLAIM["heal"])
        [row] = await connection.fetch(_STATUS["next_due"], floor, urgent_floor)
    return row["seconds"], row["at"]


async def status(connection: Connection) -> QueueStatus:
    """Count the queue."""
    await connection.execute(_STATUS["plan_freely"])
    found = dict((await connection.fetch(_STATUS["counts"], RECENT_MINUTES, _MOST_COUNTED))[0])
    now: float = found.pop("now")
    return status_of(await _completed(connection, Counts(**found)), now=now)


async def _completed(connection: Connection, counts: Counts) -> Counts:
    """Replace counts that would take long by the planner's estimates."""
    pending, dead, later = counts.pending, counts.dead, counts.in_flight + counts.waiting
    if max(pending, dead, later) < _MOST_COUNTED:
        return counts
    if pending == _MOST_COUNTED:
        pending = max(pending, await _expected(connection, "about"))
    if dead == _MOST_COUNTED:
        dead = max(dead, await _expected(connection, "about_dead"))
    waiting = counts.waiting
    if later == _MOST_COUNTED:  # few are in flight, compared with that
        waiting = min(max(later, await _expected(connection, "about_later")), pending) - counts.in_flight
    return msgspec.structs.replace(counts, pending=pending, dead=dead, waiting=waiting, approximate=True)


async def _expected(connection: Connection, statement: str) -> int:
    [plan] = msgspec.json.decode(await connection.fetchval(_STATUS[statement]), type=list[_Explained])
    return round(plan.plan.rows)


class _Plan(msgspec.Struct):
    rows: float = msgspec.field(name="Plan Rows")


class _Explained(msgspec.Struct):
    plan: _Plan = msgspec.field(name="Plan")


async def leases(connection: Connection) -> list[LeaseHolder]:
    """Return which worker holds how many leases."""
    return [LeaseHolder(**row) for row in await connection.fetch(_STATUS["leases"])]


async def take_quota(connection: Connection, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
    """Take permits from the quota that all workers share."""
    found = await connection.fetchrow(_QUOTA["lock"])
    assert found is not None  # noqa: S101 -- the migration put the row there
    granted, due_at = grant(found["due_at"], found["now"], requests, per_minute=per_minute, ahead_seconds=ahead_seconds)
    await connection.execute(_QUOTA["keep"], due_at)
    return granted


def _keys(claims: Sequence[Claim]) -> tuple[list[str], list[int]]:
    return [claim.completion_id for claim in claims], [claim.lease for claim in claims]


def _row_count(result: str) -> int:
    """The row count at the end of the server's command tag, such as ``INSERT 0 5``."""
    return int(result.rpartition(" ")[2])
