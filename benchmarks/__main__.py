"""`make bench`: metasync end to end against common alternatives, as ratios within one run."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.case import Case
from benchmarks.cases import CASES
from benchmarks.quiet import Clocks, Noise
from benchmarks.report import bars, insert, machine, section, spread, table
from benchmarks.running import Figures

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
QUICK_SHARE = 100


def main() -> None:
    """Run the chosen benchmarks, print the tables, keep the figures as JSON and in docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; none: all")
    parser.add_argument("--runs", type=int, default=5, help="of each contender, in turns (default: 5)")
    parser.add_argument("--updates", type=int, help="instead of each benchmark's own number")
    parser.add_argument("--quick", action="store_true", help="one run of a hundredth of the updates")
    parser.add_argument("--results", type=Path, help="where the JSON goes (a full run's default: benchmarks/results/)")
    parser.add_argument("--docs", type=Path, help="where the page and charts are (a full run's default: docs/)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(CASES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    # Only the figures of a full run belong into the repository.
    full = not (arguments.quick or arguments.updates)
    docs = arguments.docs or (DOCS if full else None)
    folder = arguments.results or (RESULTS if full else None)
    for name in arguments.names or CASES:
        case = CASES[name]
        updates = arguments.updates or max(case.updates // (QUICK_SHARE if arguments.quick else 1), 1)
        measured, noise = run(case, updates, min(case.runs, 1 if arguments.quick else arguments.runs))
        print(f"\n{case.title}\n\n{table(measured, case.columns, compared=case.compared)}", flush=True)
        print(f"\n{spread(measured, case.columns)}{'' if noise is None else f'; {noise}'}", flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            told = None if noise is None else asdict(noise)
            results = {"machine": machine(), "noise": told, "updates": updates, "contenders": measured}
            (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
        if docs is not None:
            (docs / "performance").mkdir(parents=True, exist_ok=True)
            (docs / "performance" / f"{name}.svg").write_text(bars(case.title, measured, case.columns))
            insert(
                docs / "performance.md",
                name,
                section(name, case.title, measured, case.columns, updates, noise, compared=case.compared),
            )


def run(case: Case, updates: int, runs: int) -> tuple[dict[str, list[Figures]], Noise | None]:
    """Measure all contenders in turns, so that a slow minute of the machine affects all alike.

    Returns:
        the figures, and what else the machine did meanwhile; None for that if the system does not tell.
    """
    with case.contenders(updates) as contenders:
        before = Clocks.now()
        measured: dict[str, list[Figures]] = {name: [] for name in contenders}
        for number in range(runs):
            for name, measure in contenders.items():
                print(f"{case.title}: {name}, run {number + 1} of {runs}", file=sys.stderr)
                measured[name].append(measure())
        after = Clocks.now()
    return measured, None if before is None or after is None else before.until(after)


if __name__ == "__main__":
    main()
