"""`make bench-flow`: metasync and common loops, each against a hidden limit, over real sockets."""

import argparse
import asyncio
import json
import math
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.chart import Chart, Panel, lines
from benchmarks.flow_trial import WORKER, Setup, Trial, TrialFailed, run_trial, wasted

ROOT = Path(__file__).parent.parent
LABELS = {
    WORKER: "metasync run",
    "openai": "openai client, its own retries",
    "cookbook-half": "cookbook loop, at half the limit",
    "cookbook-twice": "cookbook loop, at twice the limit",
    "tenacity": "semaphore of 20, tenacity",
    "adaptive": "AWS's adaptive retry mode",
}

_HINTS = {"ms": "exact, in ms", "seconds": "in whole seconds", "wrong": "a tenth of the truth", "none": "none"}
_ROWS_PER_REQUEST_ALLOWED = 4  # some peers give up rows: none may run out of them
_FIRST_MINUTE_SECONDS = 60.0
_TRAILING_SECONDS = 10
_COLD_SECONDS = 60.0
_COLD_PER_MINUTE = 3000.0
_COUNTS = ("started while closed", "given up", "lost")


async def run_all(names: Sequence[str], setup: Setup, *, side_by_side: bool) -> list[Trial]:
    """Let the contenders work, one after the other or all at once, each against its own simulator.

    Raises:
        TrialFailed: one of them failed; the others are ended.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _task().cancel)
    if not side_by_side:
        return [await run_trial(name, setup) for name in names]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_trial(name, setup)) for name in names]
    except* TrialFailed as failures:
        raise TrialFailed("; ".join(str(failure) for failure in failures.exceptions)) from None
    return [task.result() for task in tasks]


async def cold_starts(setup: Setup) -> dict[str, Trial]:
    """Let the worker search the limit with each form of ``Retry-After``, one after the other.

    Raises:
        TrialFailed: one of them failed.
    """
    return {hint: await run_trial(WORKER, replace(setup, hint=hint)) for hint in _HINTS}


def cold_table(trials: Mapping[str, Trial], setup: Setup) -> str:
    """The figures of cold starts for people, as Markdown."""
    lines = ["| hint | goodput in 30 s | in all | wasted in all |", "|---|--:|--:|--:|"]
    for hint, trial in trials.items():
        half = replace(trial, samples=[sample for sample in trial.samples if sample.at_seconds <= _COLD_SECONDS / 2])
        shares = (half.goodput(setup), trial.goodput(setup), trial.wasted())
        lines.append(f"| {_HINTS[hint]} | {' | '.join(_shown(share) for share in shares)} |")
    return "\n".join(lines)


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 -- called from a coroutine
    return task


def table(trials: Sequence[Trial], setup: Setup) -> str:
    """The figures for people, as Markdown."""
    columns = ("contender", "goodput", "after a minute", "wasted", "after a minute", *_COUNTS)
    lines = [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for trial in trials:
        shares = (
            trial.goodput(setup),
            trial.goodput(setup, _FIRST_MINUTE_SECONDS),
            trial.wasted(),
            trial.wasted(_FIRST_MINUTE_SECONDS),
        )
        cells = [LABELS[trial.name], *(_shown(share) for share in shares)]
        cells += [
            f"{trial.started_while_closed:,}",
            f"{trial.given_up:,}",
            "" if trial.lost is None else f"{trial.lost:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def chart(trials: Sequence[Trial], setup: Setup) -> Chart:
    """Goodput and waste over time, each over the seconds before."""
    goodput: dict[str, list[tuple[float, float | None]]] = {}
    waste: dict[str, list[tuple[float, float | None]]] = {}
    span = max(1, min(_TRAILING_SECONDS, len(trials[0].samples) // 4))
    for trial in trials:
        spans = list(zip(trial.samples, trial.samples[span:], strict=False))
        allowed = setup.per_minute / 60
        goodput[LABELS[trial.name]] = [
            (last.at_seconds, 100 * (last.accepted - first.accepted) / (allowed * (last.at_seconds - first.at_seconds)))
            for first, last in spans
        ]
        waste[LABELS[trial.name]] = [
            (last.at_seconds, None if (share := wasted(first, last)) is None else 100 * share) for first, last in spans
        ]
    title = f"Against a hidden limit of {setup.per_minute:,.0f} requests a minute"
    over = f"over the last {span} s"
    return Chart(
        title=title,
        description=f"{title}: goodput and waste of each contender over {setup.seconds:g} seconds, measured.",
        x_label="seconds since the first request",
        right=setup.seconds,
        panels=[
            Panel(f"Goodput: requests let through, % of the limit, {over}", goodput, top=100.0),
            Panel(f"Waste: requests answered 429, % of all requests, {over}", waste, top=100.0),
        ],
    )


def _write(trials: Sequence[Trial], setup: Setup, *, side_by_side: bool, results: Path, drawing: Path) -> None:
    figures = {
        "machine": _machine(),
        "setup": asdict(setup),
        "side_by_side": side_by_side,
        "contenders": {
            trial.name: {
                "goodput": trial.goodput(setup),
                "goodput_after_first_minute": trial.goodput(setup, _FIRST_MINUTE_SECONDS),
                "wasted": trial.wasted(),
                "wasted_after_first_minute": trial.wasted(_FIRST_MINUTE_SECONDS),
                **asdict(trial),
            }
            for trial in trials
        },
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(figures, indent=2) + "\n")
    drawing.write_text(lines(chart(trials, setup)))


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("metasync", "aiohttp", "openai", "tenacity"))
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _positive(text: str) -> float:
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def main() -> None:
    """Run the contenders, print the table, keep the figures as JSON and draw the chart."""
    parser = argparse.ArgumentParser(prog="make bench-flow", description=__doc__)
    parser.add_argument("--minutes", type=_positive, default=3.0, help="for each contender (default: 3)")
    parser.add_argument("--per-minute", type=_positive, default=500.0, help="the hidden limit (default: 500)")
    parser.add_argument("--update-latency", default="1s~0.3", metavar="DELAY", help="default: log-normal about 1 s")
    parser.add_argument(
        "--contenders", nargs="+", choices=LABELS, default=list(LABELS), metavar="NAME", help=", ".join(LABELS)
    )
    parser.add_argument("--rejects-are-free", action="store_true", help="rejected requests do not use up the limit")
    parser.add_argument("--no-cold-starts", action="store_true", help="leave out the worker's cold start by each hint")
    parser.add_argument("--side-by-side", action="store_true", help="all at once: they use little CPU")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "flow.json")
    parser.add_argument("--chart", type=Path, default=ROOT / "docs" / "flow.svg")
    arguments = parser.parse_args()
    rows = 100 + math.ceil(_ROWS_PER_REQUEST_ALLOWED * arguments.per_minute * arguments.minutes)
    setup = Setup(
        arguments.per_minute, arguments.minutes * 60, arguments.update_latency, rows, arguments.rejects_are_free
    )
    names = list(dict.fromkeys(arguments.contenders))
    cold = Setup(_COLD_PER_MINUTE, _COLD_SECONDS, "200ms", rows=100 + round(2 * _COLD_PER_MINUTE))
    print(_machine())
    print(
        f"{setup.per_minute:g} a minute, {setup.seconds:g} s each, update latency {setup.update_latency}\n", flush=True
    )
    try:
        if not arguments.no_cold_starts:
            print(f"{cold_table(asyncio.run(cold_starts(cold)), cold)}\n", flush=True)
        trials = asyncio.run(run_all(names, setup, side_by_side=arguments.side_by_side))
    except TrialFailed as failure:
        sys.exit(f"{parser.prog}: {failure}")
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    print(table(trials, setup))
    _write(trials, setup, side_by_side=arguments.side_by_side, results=arguments.results, drawing=arguments.chart)
    if any(trial.lost is not None and trial.lost > 0 for trial in trials):
        sys.exit(f"{parser.prog}: changes were lost")


if __name__ == "__main__":
    main()
