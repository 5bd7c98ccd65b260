"""Figures as tables and bar charts, and docs/performance.md around them."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import chart
from benchmarks.quiet import Noise
from benchmarks.running import Figures

_LIBRARIES = ("metasync", "aiohttp", "apsw", "asyncpg", "msgspec", "openai", "pgqueuer", "redis", "uvloop")

Measured = Mapping[str, Sequence[Figures]]


def machine() -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    model = platform.processor() or platform.machine()
    cpu_information = Path("/proc/cpuinfo")
    if cpu_information.exists():
        lines = cpu_information.read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    return {
        "cores": str(os.cpu_count()),
        "processor": model,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def table(measured: Measured, columns: Mapping[str, str], *, compared: int = 100) -> str:
    """Format the medians with the least and the most.

    Args:
        columns: headings by figure.
        compared: of so many contenders, the first one's first figure is also shown as a multiple of each; then of the
            next.
    """
    main = next(iter(columns))
    names = list(measured)
    first = names[0] if len(names) <= compared else "the first of its kind"
    headings = [*columns.values(), *([f"{first} is"] if compared else [])]
    lines = [f"| | {' | '.join(headings)} |", f"|---|{'---:|' * len(headings)}"]
    for number, (contender, runs) in enumerate(measured.items()):
        shown = [_spread([run[column] for run in runs]) for column in columns]
        if compared:
            firsts = measured[names[number // compared * compared]]
            # Of runs of one round: a slow time of the machine slows both.
            ratio = statistics.median(ours[main] / theirs[main] for ours, theirs in zip(firsts, runs, strict=True))
            shown.append(f"{ratio:.2f} times")
        lines.append(f"| {contender} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    median = _figure(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({_figure(min(values))} to {_figure(max(values))})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bars(title: str, measured: Measured, columns: Mapping[str, str]) -> str:
    """Draw the medians of the main figure as one SVG document, with a line from the least to the most."""
    column, unit = next(iter(columns.items()))
    drawn = []
    for name, runs in measured.items():
        values = [run[column] for run in runs]
        median = statistics.median(values)
        drawn.append(chart.Bar(name, min(values), median, max(values), _figure(median)))
    return chart.bars(f"{title.replace('`', '')}: {unit}", drawn)


def spread(measured: Measured, columns: Mapping[str, str]) -> str:
    """Say how far the main figure's runs lie apart, if there are several: for the contender that varies most."""
    column = next(iter(columns))
    if len(next(iter(measured.values()))) == 1:
        return "one run: how far figures vary is not known"
    apart = {
        name: (max(values) - min(values)) / (statistics.median(values) or 1.0)
        for name, runs in measured.items()
        for values in [[run[column] for run in runs]]
    }
    name = max(apart, key=lambda each: apart[each])
    return f"runs lie at most {apart[name]:.0%} apart ({name})"


def section(  # noqa: PLR0917 -- what a benchmark is, and what came of it
    name: str,
    title: str,
    measured: Measured,
    columns: Mapping[str, str],
    updates: int,
    noise: Noise | None,
    *,
    compared: int,
) -> str:
    """Write one benchmark's part of the page."""
    about = machine()
    versions = ", ".join(f"{library} {about[library]}" for library in _LIBRARIES)
    runs = len(next(iter(measured.values())))
    repeated = "one run" if runs == 1 else f"median (least to most) of {runs} runs in turns"
    said = "" if noise is None else f"; {noise}"
    where = f"{about['cores']} cores, {about['processor']}, {about['kernel']}, Python {about['python']}"
    return "\n".join(
        [
            table(measured, columns, compared=compared),
            "",
            f"![{title.replace('`', '')}](performance/{name}.svg)",
            "",
            f"{updates:,} updates; {repeated}; {spread(measured, columns)}{said}; {where}, {versions}.",
        ]
    )


def insert(page: Path, name: str, text: str) -> None:
    """Put the text between this benchmark's markers on the page.

    Raises:
        ValueError: the page has none.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page.name} has no place for {name}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
