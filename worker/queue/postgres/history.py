"""What the queue remembers of its last day, as functions of a connection."""

from worker.queue.history import HistoryMinute, Sample, every_minute
from worker.queue.postgres.connections import Connection
from worker.queue.statements import read_statements

_HISTORY = read_statements(__package__, "history")


async def record(connection: Connection, sample: Sample) -> None:
    """Keep the sample as the last one of this minute."""
    await connection.execute(
        _HISTORY["record"],
        sample.pending,
        sample.oldest_seconds,
        sample.rate_per_second,
        sample.limit_per_second,
    )


async def read(connection: Connection, minutes: int) -> list[HistoryMinute]:
    """Return the last minutes, oldest first."""
    newest: int = await connection.fetchval(_HISTORY["newest"])
    since = newest - minutes + 1
    done = await connection.fetch(_HISTORY["done"], since)
    samples = await connection.fetch(_HISTORY["samples"], since)
    return every_minute(
        newest,
        minutes,
        [tuple(row) for row in done],
        [(minute, Sample(*values)) for minute, *values in samples],
    )
