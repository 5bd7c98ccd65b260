"""Dead letters: read, retried and purged, as functions of a connection, each within one transaction."""

from collections.abc import Sequence

import asyncpg

from worker.queue.base import PAGE, Part, Stretch
from worker.queue.letters import MOST_NUMBERS_TOLD, DeadLetter, LetterCount, Revived
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.putting import append_to, check_none_settled, forget_empty
from worker.queue.statements import read_statements
from worker.queue.text import storable

BULK = 1_000  # dead letters to retry or purge in one transaction: of the largest, 10,000 took more than ten seconds

_LARGEST = 2**63 - 1  # of PostgreSQL's bigints
_BATCH = read_statements(__package__, "batch")
_DEAD = read_statements(__package__, "dead")
_STATUS = read_statements(__package__, "status")


async def read(connection: Connection, stretch: Stretch) -> Part[list[DeadLetter]]:
    """Return the first letters of the stretch."""
    numbers, last = await _selected(connection, stretch, PAGE)
    found = await connection.fetch(_DEAD["letters"], numbers)
    return Part([DeadLetter(**row) for row in found], last, await _newest(connection))


async def retry(connection: Connection, stretch: Stretch) -> Part[Revived]:
    """Turn the first letters of the stretch into changes again, except those that have to stay dead; see `Revived`."""
    newest, (numbers, last) = await _newest(connection), await _selected(connection, stretch, BULK)
    held = await connection.fetch(_DEAD["hold"], numbers)
    superseded = [row["number"] for row in held if row["is_superseded"]]
    wanted = [row for row in held if not row["is_superseded"] and not row["is_settled"]]
    completion_ids = list(dict.fromkeys(row["completion_id"] for row in wanted))
    await append_to(connection, completion_ids)
    batches = await _batches_of(connection, wanted)
    made = await connection.fetch(
        _DEAD["revive"], [row["number"] for row in wanted], [batches.get(row["batch"]) for row in wanted]
    )
    revived = [row for row in made if row["is_revived"]]
    await check_none_settled(connection, [row["change_id"] for row in wanted if row["change_id"] is not None])
    await connection.execute(_DEAD["delete"], [row["number"] for row in revived])
    await _take_from_batches(connection, revived)
    if len(revived) < len(wanted):
        await forget_empty(connection, completion_ids)
    kept = len(held) - len(superseded) - len(revived)
    return Part(Revived(len(revived), kept, len(superseded), tuple(superseded[:MOST_NUMBERS_TOLD])), last, newest)


async def _batches_of(connection: Connection, letters: Sequence[asyncpg.Record]) -> dict[str | None, int]:
    """Return the numbers of the letters' batches, by name, and lock out others that retry letters of these batches."""
    names = {row["batch"] for row in letters} - {None}
    if not names:
        return {}
    numbers = {row["name"]: row["number"] for row in await connection.fetch(_BATCH["numbers"], sorted(names))}
    await connection.execute(_BATCH["hold_for_letters"], list(numbers.values()))
    return numbers


async def _take_from_batches(connection: Connection, revived: Sequence[asyncpg.Record]) -> None:
    """Count revived letters in their batches: no longer dead, but pending under new ids."""
    by_batch: dict[int, list[int]] = {}
    for row in revived:
        if row["batch"] is not None:
            by_batch.setdefault(row["batch"], []).append(row["id"])
    if by_batch:
        told = [(batch, len(ids), min(ids), max(ids)) for batch, ids in by_batch.items()]
        await connection.execute(_DEAD["take_from_batch"], *zip(*told, strict=True))


async def purge(connection: Connection, stretch: Stretch) -> Part[int]:
    """Delete the first letters of the stretch."""
    newest, (numbers, last) = await _newest(connection), await _selected(connection, stretch, BULK)
    purged = await connection.fetch(_DEAD["delete"], numbers)
    return Part(len(purged), last, newest)


async def reasons(connection: Connection, until: int) -> dict[str, LetterCount]:
    """Count the letters by reason, up to this number."""
    await connection.execute(_STATUS["plan_freely"])
    found = await connection.fetch(_DEAD["reasons"], until)
    return {row["reason"]: LetterCount(row["letters"], row["newest"]) for row in found}


async def _newest(connection: Connection) -> int:
    number: int = await connection.fetchval(_DEAD["newest"])
    return number


async def _selected(connection: Connection, stretch: Stretch, usual: int) -> tuple[Sequence[int], int | None]:
    """Return the numbers of the matching letters, and the last number looked at; None for it at the end."""
    selection, limit = stretch.selection, stretch.limit(usual)
    conditions: list[object] = []
    completion_id, reason, batch = map(storable, (selection.completion_id, selection.reason, selection.batch))
    match selection.index:
        case "number":
            numbers = [number for number in selection.numbers or () if 0 < number <= _LARGEST]
            conditions = [numbers, completion_id, reason, batch]
        case "completion":
            conditions = [completion_id, reason, batch]
        case "batch":
            conditions = [batch, reason]
        case "reason":
            conditions = [reason]
    statement = _DEAD[f"by_{selection.index}"]
    found = await connection.fetch(statement, stretch.after, stretch.until, limit, *conditions)
    numbers = [row["number"] for row in found]
    last = numbers[-1] if len(numbers) == limit else None
    if selection.ages is not None:  # after the limit, so that transactions are short even if few letters match
        numbers = [row["number"] for row in await connection.fetch(_DEAD["of_age"], numbers, *selection.ages)]
    return numbers, last
