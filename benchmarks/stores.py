"""`make bench-queue`: the cost of enqueue, claim and finish on each store, by backlog, and of an urgent start."""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import apsw

from benchmarks.report import bars, insert, machine
from benchmarks.running import database, postgres
from tests.queue.postgres_server import connected
from tests.queue.redis_server import DURABLE, running
from worker.changes import MetadataChange
from worker.queue import Claim, Queue, Settlement, open_queue

RESULTS = Path(__file__).parent / "results" / "queue.json"
DOCS = Path(__file__).parents[1] / "docs"
BATCH = 100
BATCHES = 2_000
SIZES = [100_000, 1_000_000]
STEPS = ("enqueue", "claim", "finish")
URGENT_PENDING = 10_000_000
_URGENT_TRIES = 20
_URGENT_SECONDS = 2.0  # the promise
STORES = ("SQLite", "PostgreSQL", "Valkey")
_PUT_AT_ONCE = 10_000
_PAUSE_SECONDS = 0.1
_numbers = count(2**31)  # of the completions that come after the loading
_databases = count(1)
# The service's ids are random: neighbours in time are not neighbours in an index. So are these, by a factor that
# reaches every number of 32 bits once. They are also as long.
_SCATTER = 2_654_435_761
_TAIL = "Zq3Kd8Wm5Rx1Tb6Yn9Lp4"


def completion_id(number: int) -> str:
    """An id in the service's form, of 38 characters. The SQL that fills the stores makes the same ids."""
    return f"chatcmpl-{number * _SCATTER % 2**32:08x}{_TAIL}"


@dataclass(frozen=True, slots=True)
class Stage:
    """A queue with a backlog, and the time of each batch on it, in milliseconds, by step."""

    label: str
    queue: Queue
    taken: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})

    async def batch(self) -> None:
        """Enqueue a batch, and claim and finish as many changes, so that the backlog stays the same."""
        changes = [
            MetadataChange(completion_id=completion_id(next(_numbers)), metadata={"grade": "A"}, mode="replace")
            for _ in range(BATCH)
        ]
        started = time.perf_counter()
        await self.queue.put(changes)
        enqueued = time.perf_counter()
        claims = await self.queue.claim(BATCH, lease_seconds=300, owner="bench")
        claimed = time.perf_counter()
        settlements = [Settlement(claim, applied=[change.number for change in claim.changes]) for claim in claims]
        before_finish = time.perf_counter()
        stale = await self.queue.settle(settlements)
        finished = time.perf_counter()
        if stale or len(claims) != BATCH:
            raise SystemExit(f"{self.label}: {len(claims)} claimed, {len(stale)} of them stale")
        seconds = (enqueued - started, claimed - enqueued, finished - before_finish)
        for step, spent in zip(STEPS, seconds, strict=True):
            self.taken[step].append(spent * 1_000)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open queue, and its URL."""

    queue: Queue
    url: str


@asynccontextmanager
async def _sqlite(pending: int, *, held: bool) -> AsyncIterator[Loaded]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/queue.db"
        url = f"sqlite:///{path}"
        async with open_queue(url) as queue:
            connection = apsw.Connection(path)
            connection.execute(
                "PRAGMA cache_size = -2000000; BEGIN; CREATE TEMP TABLE pair AS"  # noqa: S608 -- numbers and names
                f" WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {pending})"
                f" SELECT n, printf('chatcmpl-%08x{_TAIL}', n * {_SCATTER} % 4294967296) AS completion_id FROM up;"
                " INSERT INTO main.target (number, completion_id, visible_at, pending)"
                " SELECT n, completion_id, unixepoch() - 3600 + n * 1e-6, 1 FROM pair;"
                " INSERT INTO main.change (target, mode, metadata, enqueued_at)"
                " SELECT n, 'replace', '{\"grade\":\"A\"}', unixepoch() - 3600 FROM pair; COMMIT;"
                " DROP TABLE pair; PRAGMA cache_size = -2000; PRAGMA wal_checkpoint(TRUNCATE)"
            )
            if held:
                connection.execute("BEGIN; SELECT count(*) FROM (SELECT 1 FROM target LIMIT 1)").fetchall()
            yield Loaded(queue, url)
            connection.close()


def _postgres(url: str) -> "Store":
    @asynccontextmanager
    async def opened(pending: int, *, held: bool) -> AsyncIterator[Loaded]:
        async with (
            database(url, f"bench_{next(_databases)}") as place,
            open_queue(place, timeout_seconds=60) as queue,
            connected(place) as connection,
        ):
            await connection.execute(
                "CREATE TEMP TABLE pair AS SELECT n, 'chatcmpl-'"  # noqa: S608 -- numbers and names
                f" || lpad(to_hex(n::bigint * {_SCATTER} % 4294967296), 8, '0') || '{_TAIL}' AS completion_id"
                f" FROM generate_series(1, {pending}) n;"
                " INSERT INTO metasync.completion (completion_id, target)"
                " SELECT completion_id, n FROM pair ORDER BY n;"
                f" SELECT setval('metasync.completion_target_seq', {pending});"
                " INSERT INTO metasync.target (number, completion_id, visible_at) SELECT n, completion_id,"
                " now() - interval '1 hour' + n * interval '1 us' FROM pair ORDER BY n;"
                " INSERT INTO metasync.change (target, mode, metadata, enqueued_at) SELECT n,"
                " 'replace', '{\"grade\":\"A\"}', now() - interval '1 hour' FROM pair ORDER BY n; DROP TABLE pair"
            )
            await connection.execute("VACUUM ANALYZE")
            if held:
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM metasync.note")
            yield Loaded(queue, place)

    return opened


@asynccontextmanager
async def _redis(pending: int, *, held: bool) -> AsyncIterator[Loaded]:
    del held  # Redis has no transaction that stays open
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), DURABLE) as store:
        async with open_queue(store.url(), timeout_seconds=60) as queue:
            for first in range(0, pending, _PUT_AT_ONCE):
                await queue.put(
                    [
                        MetadataChange(completion_id=completion_id(n), metadata={"grade": "A"}, mode="replace")
                        for n in range(first, min(first + _PUT_AT_ONCE, pending))
                    ]
                )
            yield Loaded(queue, store.url())


Store = Callable[..., AbstractAsyncContextManager[Loaded]]


async def measure(name: str, store: Store, sizes: Sequence[int], batches: int) -> list[Stage]:
    """Run batches on queues of all sizes in turns, and on one of the least size with an open transaction."""
    async with AsyncExitStack() as queues:
        stages = []
        for pending, held in [*((size, False) for size in sizes), *([] if name == "Valkey" else [(sizes[0], True)])]:
            label = f"{name}, {pending:,}{', a transaction open' if held else ''}"
            print(f"{label}: loading", file=sys.stderr)
            loaded = await queues.enter_async_context(store(pending, held=held))
            stages.append(Stage(label, loaded.queue))
        for _ in range(batches):
            for stage in stages:
                await stage.batch()
        return stages


async def measure_urgent(name: str, store: Store, pending: int) -> list[float]:
    """How many milliseconds each urgent change takes from its put until a waiting worker has it.

    Raises:
        SystemExit: one took longer than promised.
    """
    print(f"{name}, {pending:,}, and one urgent: loading", file=sys.stderr)
    async with store(pending, held=False) as loaded, open_queue(loaded.url, timeout_seconds=60) as producer:
        taken = []
        for _ in range(_URGENT_TRIES):
            worker = asyncio.create_task(_claim_urgent(loaded.queue))
            await asyncio.sleep(_PAUSE_SECONDS)  # until it waits
            started = time.perf_counter()
            urgent = MetadataChange(completion_id=completion_id(next(_numbers)), metadata={"grade": "A"})
            await producer.put(urgent, urgent=True)
            [claim] = await worker
            taken.append((time.perf_counter() - started) * 1_000)
            if claim.completion_id != urgent.completion_id:
                raise SystemExit(f"{name}: {claim.completion_id} came in place of the urgent one")
            await loaded.queue.settle([Settlement(claim, applied=[claim.changes[0].number])])
    if max(taken) > _URGENT_SECONDS * 1_000:
        raise SystemExit(f"{name}, {pending:,} pending: an urgent change waited for {max(taken):,.0f} ms")
    return taken


async def _claim_urgent(queue: Queue) -> list[Claim]:
    """Wait for an urgent change as a worker with an idle slot does."""
    while True:
        claims = await queue.claim(BATCH, lease_seconds=300, owner="bench", place="urgent")
        if claims:
            return claims
        await queue.wait_for_work(queue.poll_seconds)


def urgent_table(taken: Mapping[str, Sequence[float]]) -> str:
    """The start of an urgent change, by store."""
    lines = ["| store, completions pending | one urgent starts within, ms | the slowest |", "|---|---:|---:|"]
    lines += [f"| {label} | {statistics.median(times):.1f} | {max(times):.1f} |" for label, times in taken.items()]
    return "\n".join(lines)


def table(stages: Sequence[Stage]) -> str:
    """Rates and times by stage; for the claims, also the last tenth, compared with the store's first."""
    lines = [
        "| completions pending | enqueue/s | claim/s | finish/s | claim, ms | p99 | last tenth | to the first |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    firsts: dict[str, float] = {}
    for stage in stages:
        rates = [f"{BATCH * 1_000 / statistics.median(stage.taken[step]):,.0f}" for step in STEPS]
        claims = stage.taken["claim"]
        p99 = statistics.quantiles(claims, n=100, method="inclusive")[98]
        last = statistics.median(claims[-max(len(claims) // 10, 1) :])
        first = firsts.setdefault(stage.label.partition(",")[0], statistics.median(claims))
        shown = [f"{figure:.2f}" for figure in (statistics.median(claims), p99, last)]
        cells = [stage.label, *rates, *shown, f"{statistics.median(claims) / first:.2f} times"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


async def _measure_all(
    arguments: argparse.Namespace, sizes: Sequence[int]
) -> tuple[list[Stage], dict[str, list[float]]]:
    """Return the figures of batches by stage, and of urgent changes, by store."""
    with ExitStack() as servers:
        stores: dict[str, Store] = {}
        for name in arguments.stores:
            if name == "PostgreSQL":
                stores[name] = _postgres(servers.enter_context(postgres()))
            else:
                stores[name] = {"SQLite": _sqlite, "Valkey": _redis}[name]
        stages: list[Stage] = []
        urgent = {}
        for name, store in stores.items():
            stages += await measure(name, store, sizes, arguments.batches)
            label = f"{name}, {arguments.urgent_pending:,}"
            urgent[label] = await measure_urgent(name, store, arguments.urgent_pending)
        return stages, urgent


# Of disk or memory, a pending completion with one change: measured 144, 840 and 410, and room for logs and rewrites.
_BYTES_EACH = {"SQLite": 300, "PostgreSQL": 1_000, "Valkey": 800}
_FILES_OF_VALKEY = 600


def check_room(sizes: Sequence[int], urgent_pending: int) -> None:
    """Refuse before a disk or the memory is full: all sizes of a store are there at once, the least of them twice.

    Those among which one is urgent are there by themselves.

    Raises:
        SystemExit: with what is needed and what there is.
    """
    pending = max(sum(sizes) + min(sizes), urgent_pending)
    temporary, memory = Path(tempfile.gettempdir()), Path("/dev/shm")  # noqa: S108 -- where there is room, PostgreSQL's
    needs = {
        str(temporary): pending * max(_BYTES_EACH["SQLite"], _FILES_OF_VALKEY),
        "the memory": pending * max(_BYTES_EACH["Valkey"], _BYTES_EACH["PostgreSQL"]),
        str(memory if memory.is_dir() else temporary): pending * _BYTES_EACH["PostgreSQL"],
    }
    for place, needed in needs.items():
        free = _available_memory() if place == "the memory" else shutil.disk_usage(place).free
        if free is not None and needed > free:
            raise SystemExit(
                f"{pending:,} completions need up to {needed / 1e9:.1f} GB of {place}, which has {free / 1e9:.1f} GB"
                " free: take smaller --sizes and --urgent-pending, or another TMPDIR"
            )


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    """Measure every store, print the table, keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="completions pending")
    parser.add_argument("--huge", action="store_true", help="10 million too")
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--urgent-pending", type=int, default=URGENT_PENDING, help="among which one is urgent")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--results", type=Path, help="where the JSON goes (of the usual sizes: benchmarks/results/)")
    parser.add_argument("--docs", type=Path, help="where the page and its charts are (of the usual sizes: docs/)")
    arguments = parser.parse_args()
    sizes = [*arguments.sizes, *([10_000_000] if arguments.huge else [])]
    check_room(sizes, arguments.urgent_pending)
    # Only the figures of a full run belong into the repository.
    full = (
        sizes[: len(SIZES)] == SIZES
        and arguments.batches >= BATCHES
        and arguments.urgent_pending >= URGENT_PENDING
        and set(arguments.stores) == set(STORES)
    )
    results = arguments.results or (RESULTS if full else None)
    docs = arguments.docs or (DOCS if full else None)
    stages, urgent = asyncio.run(_measure_all(arguments, sizes))
    print(f"{table(stages)}\n\n{urgent_table(urgent)}")
    taken = {stage.label: stage.taken for stage in stages}
    medians = {label: {step: statistics.median(of) for step, of in steps.items()} for label, steps in taken.items()}
    if results is not None:
        results.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), "milliseconds": medians, "urgent_milliseconds": urgent}
        results.write_text(json.dumps(found, indent=1) + "\n")
    if docs is not None:
        _publish(docs, stages, medians, urgent, arguments.batches)


def _publish(
    docs: Path,
    stages: Sequence[Stage],
    medians: Mapping[str, Mapping[str, float]],
    urgent: Mapping[str, Sequence[float]],
    batches: int,
) -> None:
    (docs / "performance").mkdir(exist_ok=True)
    drawn = {label: [dict(steps)] for label, steps in medians.items()}
    (docs / "performance" / "queue.svg").write_text(bars("Claim of 100 completions", drawn, {"claim": "ms"}))
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    text = (
        f"{table(stages)}\n\n![Claims](performance/queue.svg)\n\n{batches:,} batches of {BATCH} each; {about}.\n\n"
        f"One urgent change among the others, {_URGENT_TRIES} times, from `put` until a worker that waits has it:\n\n"
        f"{urgent_table(urgent)}"
    )
    insert(docs / "performance.md", "queue", text)


if __name__ == "__main__":
    main()
