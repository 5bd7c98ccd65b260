"""Plays the scenarios of flow control and prints what is measured beside what is asserted; see ``--help``."""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.flow.scenario import Scenario, load, play

FILES = sorted((Path(__file__).parents[1] / "tests" / "flow" / "scenarios").glob("*.yaml"))


def _measure(task: tuple[Scenario, tuple[int, ...]]) -> list[dict[str, float]]:
    scenario, seeds = task
    return [play(scenario, seed).measures(scenario) for seed in seeds]


def _off(figure: float, bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None or bounds[0] <= figure <= bounds[1] else " OFF"


def _rows(scenario: Scenario, measured: list[dict[str, float]]) -> dict[str, tuple[float, float, float, str]]:
    """For each measure that is asserted: least, median and most, and the ranges."""
    rows = {}
    for measure in dict.fromkeys([*scenario.median, *scenario.expect]):
        figures = [each[measure] for each in measured]
        least, median, most = min(figures), statistics.median(figures), max(figures)
        middle, every = scenario.median.get(measure), scenario.expect.get(measure)
        off = _off(median, middle) or _off(least, every) or _off(most, every)
        ranges = " ".join(f"{name} {list(bounds)}" for name, bounds in (("median", middle), ("all", every)) if bounds)
        rows[measure] = (least, median, most, ranges + off)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="", help="only scenarios whose file and name contain this")
    parser.add_argument("--seeds", help="such as 1-5 for tuning; without it, the seeds that are asserted")
    parser.add_argument("--write", type=Path, help="keep what was measured in this JSON file")
    parser.add_argument("--against", type=Path, help="print the medians of that file beside it")
    args = parser.parse_args()
    first, _, last = (args.seeds or "").partition("-")
    seeds = tuple(range(int(first), int(last or first) + 1)) if args.seeds else None
    before = json.loads(args.against.read_text(encoding="utf-8")) if args.against else {}
    scenarios = [
        (path, scenario) for path in FILES for scenario in load(path) if args.match in f"{path.stem}/{scenario.name}"
    ]
    kept = {}
    with ProcessPoolExecutor(2) as pool:
        tasks = [(scenario, seeds or scenario.seeds) for _, scenario in scenarios]
        for (path, scenario), measured in zip(scenarios, pool.map(_measure, tasks), strict=True):
            print(f"{path.stem}/{scenario.name}", flush=True)
            for measure, (least, median, most, ranges) in _rows(scenario, measured).items():
                key = f"{path.stem}/{scenario.name}/{measure}"
                kept[key] = [least, median, most]
                was = f" was {before[key][0]:.4f} {before[key][1]:.4f} {before[key][2]:.4f}" if key in before else ""
                print(f"    {measure:24} {least:9.4f} {median:9.4f} {most:9.4f}{was}  {ranges}")
    if args.write:
        args.write.write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
