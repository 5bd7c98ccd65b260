"""The benchmarks of `make bench`: for each, its contenders, of which the first is what the others are set beside."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.running import METASYNC, Figures, Server, Work, contender, cost, drain, postgres, queue_url, server
from benchmarks.running import write_changes as write

Measure = Callable[[], Figures]
Contenders = Mapping[str, Measure]
Columns = Mapping[str, str]

OPENAI_SHARE = 15  # of the updates: it is slow, and its rate does not depend on how many there are
QUEUE_SHARE = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark.

    Args:
        updates: how many a full run makes.
        columns: headings of the figures that are shown; the first is compared and drawn.
        contenders: gives what can be measured while the context is open, for a number of updates.
        runs: the most that it is repeated.
    """

    title: str
    updates: int
    columns: Columns
    contenders: Callable[[int], AbstractContextManager[Contenders]]
    runs: int = 100


THROUGHPUT = {
    "per_second": "updates/s",
    "cpu_us": "CPU µs/update",
    "peak_mb": "peak MB",
    "server_percent": "server's core, %",
}


def _watching(answering: Server, count: int, measure: Measure) -> Measure:
    """Measure the share of its core that the server takes too: near 100, it would be the bottleneck."""

    def watched() -> Figures:
        before = answering.cpu_seconds()
        figures = measure()
        seconds = count / figures["per_second"]
        return figures | {"server_percent": (answering.cpu_seconds() - before) / seconds * 100}

    return watched


def _draining(answering: Server, work: Work) -> Measure:
    return _watching(answering, work.completions, partial(drain, answering.base_url, work))


def _looping(answering: Server, name: str, count: int, **options: str) -> Measure:
    return _watching(answering, count, partial(contender, name, answering.base_url, count, **options))


@contextmanager
def _drain(updates: int) -> Iterator[Contenders]:
    with server() as answering, postgres() as store:
        few = max(updates // OPENAI_SHARE, 1)
        jobs = max(updates // QUEUE_SHARE, 1)
        yield {
            "metasync, SQLite": _draining(answering, Work(updates)),
            "metasync, PostgreSQL": _draining(answering, Work(updates, store=store)),
            "aiohttp, as everybody writes it": _looping(answering, "bare", updates),
            "aiohttp, bodies encoded ahead, answers not parsed": _looping(answering, "prepared", updates),
            "openai client": _looping(answering, "official", few),
            "pgqueuer, PostgreSQL": _looping(answering, "task_queue", jobs, database=store),
        }


@contextmanager
def _merge(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        yield {
            "metasync, merge": _draining(answering, Work(updates, mode="merge")),
            "aiohttp, GET then POST": _looping(answering, "merging", updates),
        }


@contextmanager
def _coalesce(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        yield {
            f"{changes} a completion": _draining(answering, Work(max(updates // changes, 1), changes))
            for changes in (1, 2, 5, 20)
        }


@contextmanager
def _workers(updates: int) -> Iterator[Contenders]:
    # The server shares the cores with the workers, which are not pinned.
    with server() as answering, postgres() as store:
        yield {
            f"{name}, {workers} of them": _draining(answering, replace(work, workers=workers))
            for name, work in (
                ("SQLite", Work(updates, spread=True)),
                ("PostgreSQL", Work(updates, spread=True, store=store)),
            )
            for workers in (1, 2, 4)
        }


@contextmanager
def _backlog(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        yield {
            f"{backlog:,} pending": _draining(answering, Work(backlog))
            for backlog in dict.fromkeys((min(10_000, updates), min(100_000, updates), updates))
        }


@contextmanager
def _latency(updates: int) -> Iterator[Contenders]:
    with ExitStack() as servers:
        contenders = {}
        for milliseconds in (0, 50, 500):
            answering = servers.enter_context(server(milliseconds / 1_000))
            for concurrency in (64, 256):
                # No more updates than about ten seconds' worth.
                most = 10 * concurrency * 1_000 // milliseconds if milliseconds else updates
                work = Work(min(updates, most), concurrency=concurrency)
                contenders[f"{milliseconds} ms, {concurrency} at once"] = _draining(answering, work)
        yield contenders


SLOW_SECONDS = 5.0


@contextmanager
def _slow(updates: int) -> Iterator[Contenders]:
    # Answers take 5 s, whatever their number; a run of few updates takes shorter ones.
    with server(min(SLOW_SECONDS, updates / 2_400)) as answering:
        yield {"1,000 in flight": _draining(answering, Work(updates, concurrency=1_000))}


@contextmanager
def _enqueue(updates: int) -> Iterator[Contenders]:
    with tempfile.TemporaryDirectory() as name, postgres() as store:
        folder = Path(name)
        contenders = {}
        for lines in (max(updates // 10, 1), updates):
            write(folder / f"{lines}.jsonl", Work(lines))
            for label, place in (("SQLite", "sqlite"), ("PostgreSQL", store)):
                contenders[f"{label}, {lines:,} lines"] = partial(_enqueued, folder, lines, place)
        yield contenders


def _enqueued(folder: Path, lines: int, store: str) -> Figures:
    with queue_url(store) as url:
        environment = Work(lines).environment("http://127.0.0.1:9/v1", url)
        figures = cost([METASYNC, "enqueue", f"{lines}.jsonl"], environment, folder)
        return figures | {"per_second": lines / figures["seconds"]}


@contextmanager
def _start(_: int) -> Iterator[Contenders]:
    with tempfile.TemporaryDirectory() as folder:
        environment = Work(1).environment("http://127.0.0.1:9/v1", f"sqlite:///{folder}/queue.db")
        metasync = os.environ.get("METASYNC_BENCH_COMMAND", str(METASYNC))
        commands = {
            "metasync --help": [metasync, "--help"],
            "metasync status": [metasync, "status"],
            "metasync run --drain, nothing to do": [metasync, "run", "--drain"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        cost([metasync, "run", "--drain"], environment, folder)  # makes the queue, and compiles what is imported
        yield {name: partial(cost, command, environment, folder) for name, command in commands.items()}


CASES: Mapping[str, Case] = {
    "drain": Case("Drain, `replace`, 64 at once", 30_000, THROUGHPUT, _drain),
    "merge": Case("Drain, `merge`: two requests an update", 15_000, THROUGHPUT, _merge),
    "coalesce": Case(
        "Changes per completion", 30_000, {"changes_per_second": "changes/s", **THROUGHPUT}, _coalesce, runs=3
    ),
    "workers": Case("Workers on one queue, on all cores, the server's too", 15_000, THROUGHPUT, _workers, runs=3),
    "backlog": Case("Backlog", 1_000_000, THROUGHPUT, _backlog, runs=1),
    "latency": Case("Latency of the service", 10_000, THROUGHPUT, _latency, runs=1),
    "slow": Case(
        "5 s a call, 1,000 in flight", 12_000, {"per_second": "updates/s", "cpu_percent": "CPU, %"}, _slow, runs=1
    ),
    "enqueue": Case("Enqueue of JSONL", 1_000_000, {"per_second": "lines/s", "peak_mb": "peak MB"}, _enqueue, runs=1),
    "start": Case("Start", 1, {"cpu_seconds": "CPU s"}, _start),
}
