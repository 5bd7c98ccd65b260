"""The common part of the benchmarks: the canned server, stores, and processes with known CPU time and memory."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONCURRENCY, MERGED, METADATA, completion_ids
from benchmarks.processes import Watched, cpu_seconds, pin, pin_to
from tests.queue.postgres_server import PostgresServer, administer
from worker.changes import MetadataChange, Mode
from worker.queue import open_queue

METASYNC = Path(sys.executable).parent / "metasync"
Figures = dict[str, float]
_PUT = 10_000  # changes at once


@dataclass(frozen=True, slots=True)
class Request:
    """The server's record of a request, in seconds of the machine's monotonic clock."""

    completion_id: str
    arrived_at: float
    answered_at: float


@dataclass(frozen=True, slots=True)
class Server:
    """The canned server, which answers at `base_url`."""

    base_url: str
    process: "subprocess.Popen[str]"

    def cpu_seconds(self) -> float:
        """The CPU time until now; 0 if the system does not tell."""
        return cpu_seconds(self.process.pid)

    def take_record(self) -> list[Request]:
        """Return the answers since the last call, in their order; the server has to record them."""
        assert self.process.stdin is not None  # noqa: S101 -- piped
        assert self.process.stdout is not None  # noqa: S101 -- likewise
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [Request(*seen) for seen in json.loads(self.process.stdout.readline())]


@contextmanager
def server(latency_seconds: float = 0.0, *, recording: bool = False) -> Iterator[Server]:
    """Start the canned server on the last core; it ends with the context.

    Args:
        recording: it notes when requests come and are answered, which costs it some microseconds each.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", str(latency_seconds), *(["--recording"] if recording else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 -- piped above
    pin(process.pid, last=True)
    try:
        yield Server(f"http://127.0.0.1:{process.stdout.readline().strip()}/v1", process)
    finally:
        process.communicate()


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server whose commits are synchronous; return the URL of its own database."""
    with PostgresServer.running(fsync="on", full_page_writes="on", shared_buffers="128MB") as store:
        yield store.url()


@asynccontextmanager
async def database(url: str, name: str) -> AsyncIterator[str]:
    """Return the URL of an empty database on that server, which is dropped afterwards."""
    await administer(url, f"CREATE DATABASE {name}")
    try:
        yield url.replace("/postgres?", f"/{name}?")
    finally:
        await administer(url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def queue_url(store: str) -> Iterator[str]:
    """Return the URL of a new queue in `store`: "sqlite", or the URL of a PostgreSQL server."""
    if store == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/queue.db"
        return
    with asyncio.Runner() as runner:
        place = database(store, "bench")
        url = runner.run(place.__aenter__())
        try:
            yield url
        finally:
            runner.run(place.__aexit__(None, None, None))


def contender(name: str, base_url: str, count: int, **options: str) -> Figures:
    """Run a loop out of `benchmarks.contenders`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contenders", name, base_url, str(count), json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    pin(process.pid, last=False)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    figures = json.loads(output)
    return rates(count, figures["seconds"], figures["cpu_seconds"], figures["peak_rss_mb"])


def rates(count: int, seconds: float, cpu_seconds: float, peak_rss_mb: float) -> Figures:
    """The figures of `count` updates, as rates."""
    return {
        "per_second": count / seconds,
        "cpu_us": cpu_seconds / count * 1e6,
        "cpu_percent": cpu_seconds / seconds * 100,
        "peak_mb": peak_rss_mb,
    }


@dataclass(frozen=True, slots=True)
class Work:
    """A queue to drain with the real command, its JSON log in a file.

    Args:
        completions: how many.
        changes: per completion.
        mode: of every change.
        workers: how many processes share the queue.
        spread: whether workers and server get cores of their own, in turns.
        settings: further environment variables.
        metasync: the command, of any interpreter.
    """

    completions: int
    changes: int = 1
    mode: Mode = "replace"
    workers: int = 1
    spread: bool = False
    concurrency: int = CONCURRENCY
    store: str = "sqlite"
    settings: tuple[tuple[str, str], ...] = ()
    metasync: Path = METASYNC

    def environment(self, base_url: str, url: str) -> dict[str, str]:
        """The command's environment, without the user's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METASYNC_", "OPENAI_"))}
        return kept | {
            "METASYNC_QUEUE_URL": url,
            "METASYNC_MAX_CONCURRENCY": str(self.concurrency),
            "METASYNC_LOG_FORMAT": "json",
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "sk-bench",
            **dict(self.settings),
        }


def drain(base_url: str, work: Work) -> Figures:
    """Enqueue, then drain; only the drain is measured, from the worker's first claim to its summary.

    Of several workers, the longest time counts: they start within milliseconds.
    """
    with enqueued(base_url, work) as (folder, environment):
        return _drained(folder, environment, work)


@contextmanager
def enqueued(base_url: str, work: Work) -> Iterator[tuple[Path, dict[str, str]]]:
    """Return a folder to work in and the command's environment, with everything in the queue."""
    with queue_url(work.store) as url, tempfile.TemporaryDirectory() as name:
        asyncio.run(_put(url, work))
        yield Path(name), work.environment(base_url, url)


async def _put(url: str, work: Work) -> None:
    """As `metasync enqueue` does, which would take longer to start than for few changes."""
    metadata = MERGED if work.mode == "merge" else METADATA
    async with open_queue(url) as queue:
        for _ in range(work.changes):
            ids = iter(completion_ids(work.completions))
            while some := [MetadataChange(each, metadata, work.mode) for each in islice(ids, _PUT)]:
                await queue.put(some, batch="benchmark")


def write_changes(path: Path, work: Work) -> None:
    """Write the changes in a form that `metasync enqueue` reads."""
    metadata = MERGED if work.mode == "merge" else METADATA
    with path.open("w") as file:
        for _ in range(work.changes):
            for completion_id in completion_ids(work.completions):
                line = {"completion_id": completion_id, "metadata": metadata, "mode": work.mode}
                file.write(json.dumps(line) + "\n")


def _drained(folder: Path, environment: Mapping[str, str], work: Work) -> Figures:
    processes = []
    for number in range(work.workers):
        with (folder / f"{number}.log").open("wb") as log:
            command = [str(work.metasync), "run", "--drain"]
            processes.append(Watched(command, environment=environment, folder=folder, log=log))
        if work.spread:
            pin_to(processes[-1].process.pid, number)
        else:
            pin(processes[-1].process.pid, last=False)
    usages = [process.wait() for process in processes]
    summaries = [summary_of(folder / f"{number}.log") for number in range(work.workers)]
    applied = sum(summary["applied"] for summary in summaries)
    if applied != work.completions * work.changes:
        raise SystemExit(f"{applied} of {work.completions * work.changes} changes were applied: {summaries}")
    seconds = max(summary["seconds"] for summary in summaries)
    figures = rates(work.completions, seconds, sum(cpu for cpu, _ in usages), max(peak for _, peak in usages))
    return figures | {"changes_per_second": applied / seconds}


def summary_of(log: Path) -> dict[str, Any]:
    """The last event of a log."""
    with log.open() as lines:
        events = (json.loads(line) for line in lines if '"run.summary"' in line)
        return next(event for event in events if event["event"] == "run.summary")


def cost(command: Sequence[str | Path], environment: Mapping[str, str], folder: str | Path) -> Figures:
    """Seconds, CPU seconds and peak memory of a command that succeeds; its start included."""
    started = time.perf_counter()
    watched = Watched(command, environment=environment, folder=folder)
    pin(watched.process.pid, last=False)
    cpu, peak = watched.wait()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu, "peak_mb": peak}
