"""Claim and settle, as functions of a connection, each within one transaction.

Each runs a handful of statements over sets, for a batch of any size. Locks are taken in the order of completion ids, so
that no two transactions wait for each other.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, assert_never

import asyncpg

from worker.queue.batch import ends_by_batch
from worker.queue.confirmed import LogRow
from worker.queue.pending import (
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CALL,
    MAX_CHANGES_PER_CLAIM,
    Claim,
    Place,
    QueuedChange,
    Settlement,
)
from worker.queue.postgres import batches, confirmed, remembered
from worker.queue.postgres.confirmed import Appended, LogIndexWithGaps
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.floor import Look
from worker.queue.quota import Grant, grant
from worker.queue.rows import MIDDLE_STEPS, RECENT_TARGETS, claims_of, ended, first_words
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

# A target without changes stays while a producer's transaction may add some to it. How often to look.
_EMPTY_TARGET_SECONDS = 1.0

_CLAIM = read_statements(__package__, "claim")
_LEASE, _LEASE_URGENT = (_CLAIM["lease"].format(kind=kind) for kind in ("NOT urgent", "urgent"))
_SETTLE = read_statements(__package__, "settle")
_STATUS = read_statements(__package__, "status")
_QUOTA = read_statements(__package__, "quota")


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


async def take_quota(connection: Connection, requests: int, *, per_minute: float, ahead_seconds: float) -> Grant:
    """Take permits from the quota that all workers share."""
    found = await connection.fetchrow(_QUOTA["lock"])
    assert found is not None  # noqa: S101 -- the migration put the row there
    granted, due_at = grant(found["due_at"], found["now"], requests, per_minute=per_minute, ahead_seconds=ahead_seconds)
    await connection.execute(_QUOTA["keep"], due_at)
    return granted


def _keys(claims: Sequence[Claim]) -> tuple[list[str], list[int]]:
    return [claim.completion_id for claim in claims], [claim.lease for claim in claims]
