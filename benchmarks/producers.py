"""The cost of enqueueing in an application's transactions: PostgreSQL producers, against a plain outbox table."""

import argparse
import asyncio
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from itertools import product

from tests.queue.postgres_server import PostgresServer, administer
from worker.queue import migration_sql

PRODUCERS = [1, 4, 16]
FLUSHES_MS = [0.2, 5.0]
SECONDS = 5
_TPS = re.compile(r"tps = ([0-9.]+)")
_TABLES = """
    CREATE TABLE review (id bigint PRIMARY KEY, grade int);
    INSERT INTO review SELECT i, 0 FROM generate_series(1, 100000) AS i;
    CREATE TABLE outbox (
        id bigserial PRIMARY KEY, completion_id text, patch jsonb, enqueued_at timestamptz DEFAULT now()
    );
"""
_WORK = "\\set id random(1, 100000)\nBEGIN;\nUPDATE review SET grade = grade + 1 WHERE id = :id;\n{enqueue}COMMIT;\n"
_CHANGE = "'chatcmpl-' || :id, '{\"grade\": \"A\"}'"
WAYS = {
    "no enqueue": "",
    "insert into an outbox": f"INSERT INTO outbox (completion_id, patch) VALUES ({_CHANGE});\n",  # noqa: S608 -- ours
    "`metasync_enqueue`": f"SELECT metasync.metasync_enqueue({_CHANGE});\n",
}
# Each waiting worker holds this lock. Here none is told of work, so none releases it.
_AWAITED = "SELECT pg_advisory_lock_shared(7881707736); SELECT pg_sleep(3600)"
Rates = Mapping[tuple[float, str, int], float]


def measure(seconds: int) -> Rates:
    """Return transactions a second by flush, method and number of producers.

    `commit_delay` sets the time of a flush: the one process that flushes for all sleeps before it does, also without a
    second session (`commit_siblings` 0). The files are in memory, if there is room.
    """
    rates: dict[tuple[float, str, int], float] = {}
    for flush_ms in FLUSHES_MS:
        settings: dict[str, str] = {
            "fsync": "on",
            "full_page_writes": "on",
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
        }
        settings |= {"commit_delay": str(int(flush_ms * 1_000)), "commit_siblings": "0"}
        with PostgresServer.running(None, **settings) as server:
            asyncio.run(administer(server.url(), migration_sql(server.url()) + _TABLES))
            for producers, (way, enqueue) in product(PRODUCERS, WAYS.items()):
                rates[flush_ms, way, producers] = _run(server, enqueue, producers, seconds)
            waits = subprocess.Popen(server.client("psql", "-c", _AWAITED), stdout=subprocess.DEVNULL)
            for producers in PRODUCERS:
                rates[flush_ms, "`metasync_enqueue`, always told", producers] = _run(
                    server, WAYS["`metasync_enqueue`"], producers, seconds
                )
            waits.terminate()
            waits.wait()
    return rates


def _run(server: PostgresServer, enqueue: str, producers: int, seconds: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_WORK.format(enqueue=enqueue))
        script.flush()
        options = ["-n", "-M", "prepared", "-c", str(producers), "-j", "1", "-T", str(seconds), "-f", script.name]
        told = subprocess.run(server.client("pgbench", *options), check=True, capture_output=True, text=True).stdout
    found = _TPS.search(told)
    if found is None:
        raise SystemExit(f"pgbench said nothing of a rate: {told}")
    return float(found[1])


def table(rates: Rates) -> str:
    """Transactions a second, and how `metasync_enqueue` compares with the outbox."""
    return "\n".join(_lines(rates))


def _lines(rates: Rates) -> Iterator[str]:
    ways = list(dict.fromkeys(way for _, way, _ in rates))
    yield f"| flush | producers | {' | '.join(ways)} | to the outbox |"
    yield f"|---|---:|{'---:|' * (len(ways) + 1)}"
    for flush_ms, producers in product(FLUSHES_MS, PRODUCERS):
        found = [rates[flush_ms, way, producers] for way in ways]
        shown = " | ".join(f"{rate:,.0f}" for rate in found)
        yield f"| {flush_ms:g} ms | {producers} | {shown} | {found[2] / found[1]:.2f} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.producers", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each figure")
    print(table(measure(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
