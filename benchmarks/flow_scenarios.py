"""Plays the scenarios of flow control and prints the measured figures beside the asserted ranges; see ``--help``."""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.chart import Chart, Panel, lines
from tests.flow.scenario import Change, Scenario, load, play

FILES = sorted((Path(__file__).parents[1] / "tests" / "flow" / "scenarios").glob("*.yaml"))


def _measure(task: tuple[Scenario, tuple[int, ...]]) -> list[dict[str, float]]:
    scenario, seeds = task
    return [play(scenario, seed).measures(scenario) for seed in seeds]


def _off(figure: float, bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None or bounds[0] <= figure <= bounds[1] else " OFF"


def _rows(scenario: Scenario, measured: list[dict[str, float]]) -> dict[str, tuple[float, float, float, str]]:
    """For each asserted figure: least, median and most, and the ranges."""
    rows = {}
    for measure in dict.fromkeys([*scenario.median, *scenario.expect]):
        figures = [each[measure] for each in measured]
        least, median, most = min(figures), statistics.median(figures), max(figures)
        middle, every = scenario.median.get(measure), scenario.expect.get(measure)
        off = _off(median, middle) or _off(least, every) or _off(most, every)
        ranges = " ".join(f"{name} {list(bounds)}" for name, bounds in (("median", middle), ("all", every)) if bounds)
        rows[measure] = (least, median, most, ranges + off)
    return rows


_DRAWN_SECONDS = 120
_DRAWN = (
    Scenario("500 a minute, latency 0.2 s", {}, per_minute=500, latency_seconds=0.2),
    Scenario("3,000 a minute, latency 4 s", {}, per_minute=3000, latency_seconds=4.0),
    Scenario("500 a minute, and 1,000 from the 60th second on", {}, changes=(Change(60.0, per_minute=1000),)),
)


def drawing() -> str:
    """The planned rate, and the refusals, against the limit over the first two minutes, as SVG."""
    panels = []
    for scenario in _DRAWN:
        played = play(replace(scenario, max_concurrency=512, seconds=_DRAWN_SECONDS), seed=201)
        most = 1.5 * max(played.limit_at)
        shown = {
            "aimed at": [min(most, rate) for rate in played.aim_at],
            "limit": played.limit_at,
            "answered 429": [float(refused) for refused in played.refused[:_DRAWN_SECONDS]],
        }
        panels.append(
            Panel(f"{scenario.name}: requests a second", {k: list(enumerate(v)) for k, v in shown.items()}, most)
        )
    title = "The first two minutes against a hidden limit"
    description = f"{title}: the rate that is aimed at, the limit, and the refused requests of each second, simulated."
    return lines(Chart(title, description, "seconds since the first request", _DRAWN_SECONDS, panels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="", help="only scenarios whose file and name contain this")
    parser.add_argument("--seeds", help="such as 1-5 for tuning; without it, the seeds that are asserted")
    parser.add_argument("--write", type=Path, help="keep what was measured in this JSON file")
    parser.add_argument("--against", type=Path, help="print the medians of that file beside it")
    parser.add_argument("--draw", type=Path, help="only draw rate against limit into this SVG file")
    args = parser.parse_args()
    if args.draw:
        args.draw.write_text(drawing(), encoding="utf-8")
        return
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
