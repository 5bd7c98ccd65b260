"""What people do to dead letters, as functions of a connection: each within one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.queue.base import DeadLetter, DeadSelection, storable
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.operations import append_to, forget_empty
from worker.queue.postgres.statements import statements

PAGE = 500  # dead letters that are read at once
BULK = 10_000  # dead letters that are retried or purged in one transaction
LAST = 2**63 - 1  # the largest bigint

_DEAD = statements("dead")


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


async def newest(connection: Connection) -> int:
    """Give the last letter's number, 0 when there is none."""
    number: int = await connection.fetchval(_DEAD["newest"])
    return number


async def read_page(
    connection: Connection, selection: DeadSelection, *, after: int
) -> tuple[list[DeadLetter], int | None]:
    """Give one page of the letters that match, beginning behind the number `after`, and where the page ends."""
    numbers = await _selected(connection, selection, after=after, until=LAST, limit=PAGE)
    found = await connection.fetch(_DEAD["letters"], numbers)
    return [DeadLetter(**row) for row in found], numbers[-1] if numbers else None


async def retry(connection: Connection, selection: DeadSelection, *, after: int, until: int) -> Bulk:
    """Make the next letters that match changes again, but for those whose change_id is pending."""
    numbers = await _selected(connection, selection, after=after, until=until, limit=BULK)
    if not numbers:
        return Bulk(None, 0, 0)
    found = await connection.fetch(_DEAD["hold"], numbers)
    completion_ids = list(dict.fromkeys(row["completion_id"] for row in found))
    held = [row["number"] for row in found]
    await append_to(connection, completion_ids)
    revived = [row["number"] for row in await connection.fetch(_DEAD["revive"], held)]
    await connection.execute(_DEAD["delete"], revived)
    if len(revived) < len(held):
        await forget_empty(connection, completion_ids)
    return Bulk(numbers[-1], len(revived), len(held) - len(revived))


async def purge(connection: Connection, selection: DeadSelection, *, after: int, until: int) -> Bulk:
    """Delete the next letters that match."""
    numbers = await _selected(connection, selection, after=after, until=until, limit=BULK)
    if not numbers:
        return Bulk(None, 0, 0)
    purged = await connection.fetch(_DEAD["delete"], numbers)
    return Bulk(numbers[-1], len(purged), 0)


async def _selected(
    connection: Connection, selection: DeadSelection, *, after: int, until: int, limit: int
) -> Sequence[int]:
    conditions: list[object]
    completion_id, reason = storable(selection.completion_id), storable(selection.reason)
    if selection.numbers is not None:
        numbers = [number for number in selection.numbers if 0 < number <= LAST]
        way, conditions = "by_number", [numbers, completion_id, reason]
    elif completion_id is not None:
        way, conditions = "by_completion", [completion_id, reason]
    elif reason is not None:
        way, conditions = "by_reason", [reason]
    else:
        way, conditions = "all", []
    return [row["number"] for row in await connection.fetch(_DEAD[way], after, until, limit, *conditions)]
