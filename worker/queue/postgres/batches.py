"""Batches by name, as functions of a connection, each within one transaction."""

from collections.abc import Mapping

from worker.queue.batch import MAX_FINISHED_BATCHES, Batch, BatchEnds
from worker.queue.postgres.connections import Connection
from worker.queue.statements import read_statements

_ADDED_UP = 10_000  # rows of batch_put at once

_BATCH = read_statements(__package__, "batch")
_SETTLE = read_statements(__package__, "settle")
_ALL, _ONE = (_BATCH["batches"].format(which=which) for which in ("true", "name = $1::text"))


async def read(connection: Connection, name: str | None) -> list[Batch]:
    """Return all batches, the newest first, or the one of this name."""
    if name is not None:
        return [Batch(**row) for row in await connection.fetch(_ONE, name)]
    await connection.execute(_BATCH["plan_freely"])
    return [Batch(**row) for row in await connection.fetch(_ALL)]


async def count(connection: Connection, ends: Mapping[str, BatchEnds], withdrawn: Mapping[str, int]) -> None:
    """Add ended and withdrawn changes to their batches, by name."""
    if ends or withdrawn:
        names = [*ends, *(name for name in withdrawn if name not in ends)]
        counts = [ends.get(name, BatchEnds()) for name in names]
        await connection.execute(
            _SETTLE["count_in_batches"],
            names,
            *(list(column) for column in zip(*counts, strict=True)),
            [withdrawn.get(name, 0) for name in names],
        )


async def forget(connection: Connection, older_than_seconds: float, most: int) -> int:
    """Delete the oldest finished batches; return how many were deleted."""
    await connection.execute(_BATCH["plan_freely"])
    if not await connection.fetchval(_BATCH["add_up"], _ADDED_UP):
        return 0  # the transaction that is doing it may add to a batch
    found = await connection.fetch(_BATCH["finished"], older_than_seconds, MAX_FINISHED_BATCHES, most)
    held = await connection.fetch(_BATCH["hold"], [row["name"] for row in found])
    # A second statement, so that it sees the changes that were put before the batches were locked.
    forgotten: int = await connection.fetchval(_BATCH["forget"], [row["name"] for row in held])
    return forgotten
