"""What `--results` costs: the same file applied with and without it, the whole command from start to end."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.case import FEW, Contenders
from benchmarks.processes import Watched, pin
from benchmarks.running import METASYNC, Figures, Server, Work, queue_url, rates, server, summary_of, write_changes
from worker.changes import Mode

COLUMNS = {"cpu_us": "CPU µs/update", "peak_mb": "peak MB"}


@contextmanager
def contenders(updates: int) -> Iterator[Contenders]:
    """Both modes: a replacement is the least that an update costs, a merge is read first, and so has values to tell."""
    modes: tuple[Mode, ...] = ("merge",) if updates < FEW else ("replace", "merge")
    with server() as answering:
        yield {
            f"{mode}, {name}": partial(_applied, answering, Work(updates, mode=mode), flags)
            for mode in modes
            for name, flags in (
                ("no results", ()),
                ("`--results`", ("--results", "results.jsonl")),
                ("`--results --with-values`", ("--results", "results.jsonl", "--with-values")),
            )
        }


def _applied(answering: Server, work: Work, flags: tuple[str, ...]) -> Figures:
    """Enqueueing and applying; the rate is that of the worker alone."""
    with queue_url(work.store) as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_changes(folder / "changes.jsonl", work)
        environment = work.environment(answering.base_url, url)
        with (folder / "log").open("wb") as log:
            command: list[str | Path] = [METASYNC, "apply", "changes.jsonl", *flags]
            watched = Watched(command, environment=environment, folder=folder, log=log)
        pin(watched.process.pid, last=False)
        cpu, peak = watched.wait()
        summary = summary_of(folder / "log")
        told = len((folder / "results.jsonl").read_text().splitlines()) if flags else work.completions
    if (summary["applied"], told) != (work.completions, work.completions):
        raise SystemExit(f"{summary['applied']} of {work.completions} were applied, {told} have a line")
    return rates(work.completions, summary["seconds"], cpu, peak)
