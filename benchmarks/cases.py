"""The benchmarks of `make bench`, each with its contenders. The others are compared with the first."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import added, observed, reading, start, steady, with_results, woken
from benchmarks.case import FEW, THROUGHPUT, Case, Contenders, Measure, draining, watching
from benchmarks.running import METASYNC, Figures, Server, Work, contender, cost, postgres, queue_url, server
from benchmarks.running import write_changes as write

OPENAI_SHARE = 15  # of the updates: it is slow, and its rate does not depend on their number
QUEUE_SHARE = 5


def _looping(answering: Server, name: str, count: int, **options: str) -> Measure:
    return watching(answering, count, partial(contender, name, answering.base_url, count, **options))


@contextmanager
def _drain(updates: int) -> Iterator[Contenders]:
    with server() as answering, postgres() as store:
        few = max(updates // OPENAI_SHARE, 1)
        jobs = max(updates // QUEUE_SHARE, 1)
        yield {
            "metasync, SQLite": draining(answering, Work(updates)),
            "metasync, PostgreSQL": draining(answering, Work(updates, store=store)),
            "aiohttp, as everybody writes it": _looping(answering, "bare", updates),
            "aiohttp, bodies encoded ahead, answers not parsed": _looping(answering, "prepared", updates),
            "openai client": _looping(answering, "official", few),
            "pgqueuer, PostgreSQL": _looping(answering, "task_queue", jobs, database=store),
        }


@contextmanager
def _pythons(updates: int) -> Iterator[Contenders]:
    """Drain with each interpreter that ``METASYNC_BENCH_PYTHONS`` names, such as "3.11 3.13", or else with this one."""
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    named = os.environ.get("METASYNC_BENCH_PYTHONS", "").split()
    commands = {each: Path(f".venv-{each}/bin/metasync").absolute() for each in named} or {this: METASYNC}
    with server() as answering:
        yield {
            f"Python {each}": draining(answering, Work(updates, metasync=command)) for each, command in commands.items()
        }


@contextmanager
def _merge(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        yield {
            "metasync, merge": draining(answering, Work(updates, mode="merge")),
            "aiohttp, GET then POST": _looping(answering, "merging", updates),
        }


@contextmanager
def _coalesce(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        numbers = (1, 20) if updates < FEW else (1, 2, 5, 20)
        yield {f"{changes} a completion": draining(answering, Work(updates, changes)) for changes in numbers}


@contextmanager
def _backlog(updates: int) -> Iterator[Contenders]:
    with server() as answering:
        yield {
            f"{backlog:,} pending": draining(answering, Work(backlog))
            for backlog in dict.fromkeys((min(10_000, updates), min(100_000, updates), updates))
        }


@contextmanager
def _latency(updates: int) -> Iterator[Contenders]:
    with ExitStack() as servers:
        contenders = {}
        # A run of few updates takes shorter latencies, so that it ends soon.
        for milliseconds in dict.fromkeys(min(wanted, updates // 20) for wanted in (0, 50, 500)):
            answering = servers.enter_context(server(milliseconds / 1_000))
            for concurrency in (64,) if updates < FEW else (64, 256):
                # At most the updates of about ten seconds.
                most = 10 * concurrency * 1_000 // milliseconds if milliseconds else updates
                work = Work(min(updates, most), concurrency=concurrency)
                contenders[f"{milliseconds} ms, {concurrency} at once"] = draining(answering, work)
        yield contenders


@contextmanager
def _enqueue(updates: int) -> Iterator[Contenders]:
    with tempfile.TemporaryDirectory() as name, postgres() as store:
        folder = Path(name)
        contenders = {}
        for lines in (max(updates // 10, 1), updates):
            write(folder / f"{lines}.jsonl", Work(lines))
            for label, place in (("SQLite", "sqlite"), ("PostgreSQL", store)):
                contenders[f"{label}, {lines:,} lines"] = partial(_enqueued, folder, f"{lines}.jsonl", lines, place)
        # The command of another release, to be measured in turns with this one.
        if beside := os.environ.get("METASYNC_BESIDE"):
            other = partial(_enqueued, folder, f"{updates}.jsonl", updates, "sqlite", command=beside)
            contenders[f"SQLite, {updates:,} lines, the release beside"] = other
        large = max(updates // 200, 1)
        _write_largest(folder / "largest.jsonl", large)
        contenders[f"SQLite, {large:,} lines of 32 KiB"] = partial(_enqueued, folder, "largest.jsonl", large, "sqlite")
        yield contenders


def _write_largest(path: Path, lines: int) -> None:
    """Changes as large as they may be: sixteen values of 512 characters that take four bytes each."""
    metadata = {f"key{number}": "\U0001f600" * 512 for number in range(16)}
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            change = {"completion_id": f"chatcmpl-{number}", "metadata": metadata}
            file.write(json.dumps(change, ensure_ascii=False) + "\n")


def _enqueued(folder: Path, name: str, lines: int, store: str, *, command: str | Path = METASYNC) -> Figures:
    with queue_url(store) as url:
        environment = Work(lines).environment("http://127.0.0.1:9/v1", url)
        figures = cost([command, "enqueue", name], environment, folder)
        return figures | {"per_second": lines / figures["seconds"]}


CASES: Mapping[str, Case] = {
    "drain": Case("Drain, `replace`, 64 at once", 30_000, THROUGHPUT, _drain),
    "pythons": Case("Interpreters: drain, `replace`", 30_000, THROUGHPUT, _pythons),
    "merge": Case("Drain, `merge`: two requests an update", 15_000, THROUGHPUT, _merge),
    "coalesce": Case(
        "Changes per completion", 20_000, {"changes_per_second": "changes/s", **THROUGHPUT}, _coalesce, runs=3
    ),
    "reading": Case("Reading: `pull` and `diff`", 100_000, reading.COLUMNS, reading.contenders, runs=3, compared=2),
    "workers": Case(
        "Workers on one queue, a core each", 30_000, steady.WORKERS_COLUMNS, steady.workers, runs=3, compared=2
    ),
    "results": Case("`apply` with `--results`", 15_000, with_results.COLUMNS, with_results.contenders, compared=3),
    "backlog": Case("Backlog", 1_000_000, THROUGHPUT, _backlog, runs=1),
    "latency": Case("Latency of the service", 10_000, THROUGHPUT, _latency, runs=1, compared=0),
    "slow": Case("5 s a call, 1,000 in flight", 12_000, steady.SLOW_COLUMNS, steady.slow, runs=1, compared=0),
    "added": Case(
        "Latency that the worker adds, at half load", 60_000, added.COLUMNS, added.contenders, runs=3, compared=0
    ),
    "woken": Case("An idle daemon that is given one change", 100, woken.COLUMNS, woken.contenders, runs=1, compared=0),
    "observed": Case("Being watched", 60_000, observed.COLUMNS, observed.contenders, runs=3),
    "enqueue": Case(
        "Enqueue of JSONL",
        1_000_000,
        {"per_second": "lines/s", "peak_mb": "peak MB"},
        _enqueue,
        runs=1,
        compared=0,
    ),
    "start": Case("Start", 1, {"cpu_seconds": "CPU s"}, start.contenders, compared=0),
}
