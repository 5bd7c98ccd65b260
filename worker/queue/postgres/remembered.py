"""What the queue remembers of settled changes, as functions of a connection, each within a transaction of the queue's.

Without a change_id or an as_of, nothing is asked or written.
"""

from collections.abc import Iterable, Sequence

from worker.queue.batch import MAX_REMEMBERED
from worker.queue.pending import Claim, Settlement
from worker.queue.postgres.connections import Connection
from worker.queue.rows import dated, remembered_of, with_newest
from worker.queue.statements import read_statements

_REMEMBERED = read_statements(__package__, "remembered")
_FORGET = [_REMEMBERED["forget"].format(table=table) for table in ("settled", "newest")]


async def settled_among(connection: Connection, change_ids: Sequence[str]) -> set[str]:
    """Return the change_ids among these that were settled lately."""
    if not change_ids:
        return set()
    return {row["change_id"] for row in await connection.fetch(_REMEMBERED["settled"], change_ids)}


async def attach_newest(connection: Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims with the newest as_of that was applied to their completions."""
    completion_ids = dated(claims)
    if not completion_ids:
        return list(claims)
    found = await connection.fetch(_REMEMBERED["newest_as_of"], completion_ids)
    return with_newest(claims, {row["completion_id"]: row["as_of"] for row in found})


async def remember(connection: Connection, settlements: Iterable[Settlement]) -> None:
    """Remember the change_ids and as_of of these settlements."""
    remembered = remembered_of(settlements)
    if remembered.change_ids:
        await connection.execute(_REMEMBERED["remember_change_ids"], remembered.change_ids)
    if remembered.as_of:
        await connection.execute(_REMEMBERED["remember_as_of"], list(remembered.as_of), list(remembered.as_of.values()))


async def forget(connection: Connection, older_than_seconds: float, most: int) -> int:
    """Delete the oldest of both; return how many were deleted."""
    return sum(
        [
            int((await connection.execute(statement, older_than_seconds, MAX_REMEMBERED, most)).rpartition(" ")[2])
            for statement in _FORGET
        ]
    )
