"""A benchmark: contenders that are measured in turns, and the figures that are shown."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from benchmarks.running import Figures, Server, Work, drain

# A run of fewer updates, as the tests make, shows that a benchmark works, and not how fast anything is. It leaves out
# contenders that only repeat others with another figure or mode. `--quick` takes more.
FEW = 50

Measure = Callable[[], Figures]
Contenders = Mapping[str, Measure]
Columns = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark.

    Args:
        updates: the updates of a full run.
        columns: headings of the figures that are shown; the first is drawn.
        contenders: for a number of updates, a context with the contenders.
        runs: the most repetitions.
        compared: the first of so many contenders is compared with the others, then the next so many; 0 for none.
    """

    title: str
    updates: int
    columns: Columns
    contenders: Callable[[int], AbstractContextManager[Contenders]]
    runs: int = 100
    compared: int = 100


THROUGHPUT = {
    "per_second": "updates/s",
    "cpu_us": "CPU µs/update",
    "peak_mb": "peak MB",
    "server_percent": "server's core, %",
}


def watching(answering: Server, count: int, measure: Measure) -> Measure:
    """Also measure the server's share of its core: near 100, it would be the bottleneck."""

    def watched() -> Figures:
        before = answering.cpu_seconds()
        figures = measure()
        seconds = count / figures["per_second"]
        return figures | {"server_percent": (answering.cpu_seconds() - before) / seconds * 100}

    return watched


def draining(answering: Server, work: Work) -> Measure:
    """Measure a drain with the real command."""
    return watching(answering, work.completions, partial(drain, answering.base_url, work))
