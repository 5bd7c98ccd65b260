"""Enqueue, as functions of a connection, each within one transaction.

It takes a handful of statements over sets, for a batch of any size. Completions are locked in the order of their ids,
so that no two transactions wait for each other.
"""

from collections.abc import Collection, Iterable, Sequence

import asyncpg

from worker.changes import MetadataChange
from worker.queue.batch import Terms
from worker.queue.pending import Stored
from worker.queue.postgres import remembered
from worker.queue.postgres.connections import Connection
from worker.queue.rows import Put, conflicts_among
from worker.queue.statements import read_statements
from worker.queue.text import json_text

# Changes that one statement of a put takes.
_PUT_CHUNK = 5_000
_USUAL = Terms()

_PUT = read_statements(__package__, "put")
_SETTLE = read_statements(__package__, "settle")


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


def _row_count(result: str) -> int:
    """The row count at the end of the server's command tag, such as ``INSERT 0 5``."""
    return int(result.rpartition(" ")[2])
