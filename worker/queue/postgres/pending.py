"""Pending changes: read and withdrawn, as functions of a connection, each within one transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import asyncpg

from worker.queue.base import PAGE
from worker.queue.batch import PendingSelection, Withdrawn
from worker.queue.pending import QueuedChange
from worker.queue.postgres import batches
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.operations import count_in_history, finish
from worker.queue.statements import read_statements
from worker.queue.text import storable

PIECE = 2_000  # changes looked at in one transaction

_PENDING = read_statements(__package__, "pending")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next piece of a selection begins.

    Args:
        target: when everything is read: the target of the last change returned.
        change: the id of the last change looked at.
        until: the highest id to look at.
        numbers: of the selection's batch; None without one.
    """

    change: int = 0
    target: int = 0
    until: int = 0
    numbers: Sequence[int] | None = None


async def read(
    connection: Connection, selection: PendingSelection, place: Place | None
) -> tuple[list[QueuedChange], Place | None]:
    """Return the selected changes of a piece, and where the next one begins."""
    if selection.is_everything:
        return await _read_everything(connection, place or Place())
    ids, following = await _selected(connection, selection, place, most=PAGE)
    found = await connection.fetch(_PENDING["changes"], ids) if ids else []
    return [QueuedChange(*row) for row in found], following


async def withdraw(
    connection: Connection, selection: PendingSelection, place: Place | None
) -> tuple[Withdrawn, Place | None]:
    """Withdraw the selected changes of a piece; return the counts, and where the next piece begins."""
    ids, following = await _selected(connection, selection, place, most=PIECE)
    if not ids:
        return Withdrawn(0, 0), following
    held = await connection.fetch(_PENDING["hold"], ids)
    free = {row["number"]: row["completion_id"] for row in held if not row["is_leased"]}
    leased = [row["number"] for row in held if row["is_leased"]]
    gone = await connection.fetch(_PENDING["remove"], ids, list(free)) if free else []
    in_flight = await connection.fetchval(_PENDING["count"], ids, leased) if leased else 0
    touched = {row["target"]: free[row["target"]] for row in gone}
    await _let_go(connection, touched, touched.values())
    await _count(connection, gone)
    return Withdrawn(sum(row["changes"] for row in gone), in_flight), following


async def _let_go(connection: Connection, targets: Collection[int], completion_ids: Collection[str]) -> None:
    """End the leases of these targets, and remove the targets without changes."""
    if targets:
        await connection.execute(_PENDING["let_go"], list(targets))
        await finish(connection, completion_ids)


async def _count(connection: Connection, gone: Sequence[asyncpg.Record]) -> None:
    by_batch: dict[str, int] = {}
    for row in gone:
        if row["batch"] is not None:
            by_batch[row["batch"]] = by_batch.get(row["batch"], 0) + row["changes"]
    await batches.count(connection, {}, by_batch)
    await count_in_history(connection, (0, 0, 0, 0), sum(row["changes"] for row in gone))


async def _read_everything(connection: Connection, place: Place) -> tuple[list[QueuedChange], Place | None]:
    found = await connection.fetch(_PENDING["everything"], place.target, place.change, PAGE)
    changes = [QueuedChange(*list(row)[1:]) for row in found]
    if len(found) < PAGE:
        return changes, None
    return changes, Place(target=found[-1]["target"], change=changes[-1].number)


async def _selected(
    connection: Connection, selection: PendingSelection, place: Place | None, *, most: int
) -> tuple[list[int], Place | None]:
    """Return the ids of the selected changes of a piece, and where the next one begins."""
    if place is None:
        place = await _start(connection, selection)
    if selection.batch is not None and not place.numbers:
        return [], None
    completion_id, change_id = storable(selection.completion_id), storable(selection.change_id)
    if change_id is not None:
        found = await connection.fetchrow(_PENDING["by_change_id"], change_id, completion_id, place.numbers)
    elif completion_id is not None:
        found = await connection.fetchrow(_PENDING["by_completion"], place.change, PIECE, completion_id, place.numbers)
    else:
        found = await connection.fetchrow(_PENDING["by_batch"], place.change, place.until, PIECE, place.numbers)
    assert found is not None  # noqa: S101 -- it is a row of totals
    ids = found["ids"] or []
    if len(ids) > most:
        return ids[:most], replace(place, change=ids[most - 1])
    return ids, None if found["last"] is None else replace(place, change=found["last"])


async def _start(connection: Connection, selection: PendingSelection) -> Place:
    if selection.batch is None:
        return Place()
    [row] = await connection.fetch(_PENDING["batch"], storable(selection.batch))
    # The range covers all committed changes, even if their transactions committed late.
    return Place(change=(row["first_change"] or 1) - 1, until=row["last_change"] or 0, numbers=row["numbers"] or ())
