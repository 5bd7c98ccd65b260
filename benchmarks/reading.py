"""Pulling and comparing, against loops that read the same and keep, log and retry nothing."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.case import Contenders, Measure, watching
from benchmarks.contenders import completion_ids
from benchmarks.processes import Watched, pin
from benchmarks.running import METASYNC, Figures, Server, Work, contender, rates, server, write_changes

COLUMNS = {
    "per_second": "completions/s",
    "cpu_us": "CPU µs/completion",
    "peak_mb": "peak MB",
    "server_percent": "server's core, %",
}


@contextmanager
def contenders(count: int) -> Iterator[Contenders]:
    """Each command, against the usual loop for the same work."""
    with server() as answering, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ids").write_text("\n".join(completion_ids(count)))
        write_changes(folder / "wanted.jsonl", Work(count))
        pull = ("pull", "--output", "pulled.jsonl", "--overwrite", "--json")
        yield {
            "metasync pull": _command(answering, folder, count, *pull, "--limit", str(count)),
            "aiohttp, page after page": _loop(answering, "listing", count),
            "metasync pull --ids": _command(answering, folder, count, *pull, "--ids", "ids"),
            "aiohttp, each by its id": _loop(answering, "reading", count),
            "metasync diff": _command(answering, folder, count, "diff", "wanted.jsonl", "--json", "--summary"),
            "aiohttp, each read and compared": _loop(answering, "reading", count),
        }


def _loop(answering: Server, name: str, count: int) -> Measure:
    return watching(answering, count, partial(contender, name, answering.base_url, count))


def _command(answering: Server, folder: Path, count: int, *words: str) -> Measure:
    def measure() -> Figures:
        environment = Work(count).environment(answering.base_url, "sqlite:///queue.db")
        with (folder / "printed").open("wb") as printed, (folder / "log").open("wb") as log:
            watched = Watched([METASYNC, *words], environment=environment, folder=folder, log=log, output=printed)
            pin(watched.process.pid, last=False)
            cpu, peak = watched.wait()
        summary = json.loads((folder / "printed").read_text())
        found = summary.get("written", summary.get("in_sync"))
        if found != count:
            raise SystemExit(f"{found} of {count} completions: {summary}")
        return rates(count, summary["seconds"], cpu, peak)

    return watching(answering, count, measure)
