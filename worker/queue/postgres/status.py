"""The counts of the queue, and its leases by worker, as functions of a connection."""

import msgspec

from worker.queue.pending import LeaseHolder, QueueStatus
from worker.queue.postgres.connections import Connection
from worker.queue.rows import RECENT_MINUTES, Counts, status_of
from worker.queue.statements import read_statements

# Rows of one table. To count more would take too long for a person who waits.
_MOST_COUNTED = 1_000_000

_STATUS = read_statements(__package__, "status")


async def read(connection: Connection) -> QueueStatus:
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
