"""What people do to dead letters, as functions of a connection: each within one transaction."""

from collections.abc import Sequence

from worker.queue.base import Part, Stretch
from worker.queue.letters import DeadLetter, LetterCount, Revived
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.operations import append_to, forget_empty
from worker.queue.statements import read_statements
from worker.queue.text import storable

PAGE = 500  # dead letters that are read at once
BULK = 10_000  # dead letters that are retried or purged in one transaction

_LARGEST = 2**63 - 1  # of PostgreSQL's bigints
_DEAD = read_statements(__package__, "dead")
_STATUS = read_statements(__package__, "status")


async def read(connection: Connection, stretch: Stretch) -> Part[list[DeadLetter]]:
    """Give the first letters of the stretch."""
    numbers, last = await _selected(connection, stretch, PAGE)
    found = await connection.fetch(_DEAD["letters"], numbers)
    return Part([DeadLetter(**row) for row in found], last, await _newest(connection))


async def retry(connection: Connection, stretch: Stretch) -> Part[Revived]:
    """Make the first letters of the stretch changes again, but for those whose change_id is pending."""
    newest, (numbers, last) = await _newest(connection), await _selected(connection, stretch, BULK)
    found = await connection.fetch(_DEAD["hold"], numbers)
    completion_ids = list(dict.fromkeys(row["completion_id"] for row in found))
    held = [row["number"] for row in found]
    await append_to(connection, completion_ids)
    revived = [row["number"] for row in await connection.fetch(_DEAD["revive"], held) if row["is_revived"]]
    await connection.execute(_DEAD["delete"], revived)
    if len(revived) < len(held):
        await forget_empty(connection, completion_ids)
    return Part(Revived(len(revived), len(held) - len(revived)), last, newest)


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
    """Give the numbers of the letters that match, and of the last that was looked at unless there are no more."""
    selection, limit = stretch.selection, stretch.limit(usual)
    conditions: list[object] = []
    completion_id, reason = storable(selection.completion_id), storable(selection.reason)
    match selection.index:
        case "number":
            numbers = [number for number in selection.numbers or () if 0 < number <= _LARGEST]
            conditions = [numbers, completion_id, reason]
        case "completion":
            conditions = [completion_id, reason]
        case "reason":
            conditions = [reason]
    statement = _DEAD[f"by_{selection.index}"]
    found = await connection.fetch(statement, stretch.after, stretch.until, limit, *conditions)
    numbers = [row["number"] for row in found]
    last = numbers[-1] if len(numbers) == limit else None
    if selection.ages is not None:  # of so many, and no more: however few are of that age, a transaction is short
        numbers = [row["number"] for row in await connection.fetch(_DEAD["of_age"], numbers, *selection.ages)]
    return numbers, last
