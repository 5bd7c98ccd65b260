"""The growth of a PostgreSQL queue's tables without vacuum."""

import argparse
import asyncio

from benchmarks.stores import BATCH, completion_id
from tests.queue.postgres_server import PostgresServer, connected
from worker.changes import MetadataChange
from worker.queue import Settlement, open_queue

CHANGES = 300_000
_SIZES = """
    SELECT relname, n_tup_upd AS updates, n_tup_hot_upd AS in_place, n_dead_tup AS dead,
        pg_table_size(relid) AS table_bytes, pg_indexes_size(relid) AS index_bytes
    FROM pg_stat_user_tables WHERE schemaname = 'metasync' AND relname IN ('completion', 'target', 'change')
    ORDER BY relname
"""


async def measure(changes: int) -> str:
    """Take so many changes through an empty queue with autovacuum off; return a table with the sizes of its tables."""
    with PostgresServer.running(None, autovacuum="off") as server:
        async with open_queue(server.url(), timeout_seconds=60) as queue:
            for first in range(0, changes, BATCH):
                numbers = range(first, first + BATCH)
                await queue.put([MetadataChange(completion_id(number), {"grade": "A"}) for number in numbers])
                claims = await queue.claim(BATCH, lease_seconds=300, owner="bench")
                await queue.settle(
                    [Settlement(claim, applied=[each.number for each in claim.changes]) for claim in claims]
                )
        async with connected(server.url()) as connection:  # other sessions report their statistics when they end
            rows = await connection.fetch(_SIZES)
    lines = ["| table | MB | its indexes, MB | dead rows | updates in place |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        in_place = f"{row['in_place'] / row['updates']:.0%}" if row["updates"] else ""
        sizes = f"{row['table_bytes'] / 1e6:.0f} | {row['index_bytes'] / 1e6:.0f}"
        lines.append(f"| `{row['relname']}` | {sizes} | {row['dead']:,} | {in_place} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bloat", description=__doc__)
    parser.add_argument("--changes", type=int, default=CHANGES)
    print(asyncio.run(measure(parser.parse_args().changes)))


if __name__ == "__main__":
    main()
