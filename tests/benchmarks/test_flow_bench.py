"""The flow benchmark: its arithmetic, its chart, and a short run with real processes."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import Chart, Panel, lines
from benchmarks.flow import LABELS, chart, cold_table, table
from benchmarks.flow_adaptive import AdaptiveRate, RetryQuota
from benchmarks.flow_peers import CookbookLoop, Job, Tally, completion_ids
from benchmarks.flow_scenarios import drawing
from benchmarks.flow_trial import Sample, Setup, Trial, TrialFailed, run_trial
from tests.e2e.processes import stopped
from worker.simulator import Options, RateLimit, Simulator

ROOT = Path(__file__).parents[2]
BENCH = (
    sys.executable,
    "-m",
    "benchmarks.flow",
    "--no-cold-starts",
    "--per-minute",
    "6000",
    "--update-latency",
    "20ms",
)
SVG = "{http://www.w3.org/2000/svg}"


def _parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 -- our own drawing


def _lines(svg: str, panel: int = 1) -> dict[str, ET.Element]:
    """Name of each line in one panel of the drawing, with its path."""
    start = f"line {panel} "
    groups = [group for group in _parsed(svg).iter(f"{SVG}g") if group.get("id", "").startswith(start)]
    return {group.get("id", "").removeprefix(start): group[0] for group in groups}


def _points(path: ET.Element) -> list[tuple[str, float, float]]:
    return [(word, float(x), float(y)) for word, x, y in re.findall(r"([ML]) ([\d.]+) ([\d.]+)", path.get("d", ""))]


def _texts(svg: str) -> list[str]:
    return [text.text or "" for text in _parsed(svg).iter(f"{SVG}text")]


def _chart(drawn: dict[str, list[tuple[float, float | None]]]) -> Chart:
    return Chart("Rates & limits", "Two <lines>", "seconds", right=10.0, panels=[Panel("share, %", drawn, top=100.0)])


def test_a_chart_shows_every_series_in_its_legend_and_as_a_line() -> None:
    svg = lines(_chart({"one": [(0, 0), (5, 100), (10, 50)], "a <b> & c": [(0, 100), (10, 100)]}))
    assert set(_lines(svg)) == {"one", "a <b> & c"}
    assert {"one", "a <b> & c", "share, %", "seconds", "Rates & limits"} <= set(_texts(svg))


def test_a_chart_says_what_it_is_to_those_who_cannot_see_it() -> None:
    root = _parsed(lines(_chart({"one": []})))
    labels = [
        element.text
        for name in root.get("aria-labelledby", "").split()
        for element in root.iterfind(f"*[@id='{name}']")
    ]
    assert root.get("role") == "img"
    assert labels == ["Rates & limits", "Two <lines>"]


def test_a_cold_start_tells_of_its_first_half_and_of_all() -> None:
    samples = [Sample(0.0, 0, 0), Sample(30.0, 150, 50), Sample(60.0, 450, 50)]
    shown = cold_table({"ms": Trial("metasync", samples, 0, 0, None)}, Setup(600, 60, "0", rows=1))
    assert shown.splitlines()[-1] == "| exact, in ms | 0.500 | 0.750 | 0.100 |"


def test_the_drawing_of_the_first_two_minutes_shows_the_rate_beside_the_limit() -> None:
    svg = drawing()
    for panel in (1, 2, 3):
        assert set(_lines(svg, panel)) == {"aimed at", "limit", "answered 429"}
        heights = [y for _, _, y in _points(_lines(svg, panel)["limit"])]
        aimed = [y for _, _, y in _points(_lines(svg, panel)["aimed at"])]
        assert aimed[-1] == pytest.approx(heights[-1], abs=20)  # points of the drawing: a seventh of a panel


def test_the_same_figures_give_the_same_file() -> None:
    assert lines(_chart({"one": [(0, 1), (1, 2)]})) == lines(_chart({"one": [(0, 1), (1, 2)]}))


def test_a_line_has_a_gap_where_there_is_no_value() -> None:
    svg = lines(_chart({"one": [(0, 1), (1, 90), (2, None), (3, 4), (4, 50)]}))
    assert [word for word, _, _ in _points(_lines(svg)["one"])] == ["M", "L", "M", "L"]


def test_an_axis_reaches_beyond_its_least_end_for_greater_values() -> None:
    tops = [_points(_lines(lines(_chart({"one": [(0, 0), (10, most)]})))["one"])[-1][2] for most in (100, 240)]
    assert tops[0] == tops[1]  # both end where the axis does
    assert "200" in _texts(lines(_chart({"one": [(0, 0), (10, 240)]})))


def test_lines_can_be_told_apart_without_their_colours() -> None:
    svg = lines(_chart({str(number): [(0, number), (10, number)] for number in range(6)}))
    dashes = [re.findall(r"stroke-dasharray: ([^;]+)", path.get("style", "")) for path in _lines(svg).values()]
    assert len({str(each) for each in dashes}) == 6


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="7 lines"):
        lines(_chart({str(number): [] for number in range(7)}))


@pytest.mark.parametrize(("right", "top"), [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_an_axis_without_length_is_refused(right: float, top: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        lines(Chart("", "", "", right, [Panel("", {}, top)]))


SETUP = Setup(per_minute=60, seconds=120, update_latency="1s", rows=1_000)
TRIAL = Trial(
    "metasync",
    [Sample(0, 0, 0), Sample(60, 30, 30), Sample(120, 90, 40)],
    started_while_closed=2,
    given_up=1,
    lost=0,
)


def test_goodput_is_a_share_of_the_limit_and_waste_one_of_the_requests() -> None:
    assert (TRIAL.goodput(SETUP), TRIAL.goodput(SETUP, 60)) == (0.75, 1.0)
    assert TRIAL.wasted() == pytest.approx(40 / 130)
    assert TRIAL.wasted(60) == pytest.approx(10 / 70)


def test_there_are_no_shares_of_a_time_that_did_not_come() -> None:
    assert TRIAL.goodput(SETUP, 121) is None
    assert TRIAL.wasted(121) is None


def test_the_table_has_every_figure_of_a_contender() -> None:
    assert table([TRIAL], SETUP).splitlines()[-1] == "| metasync run | 0.750 | 1.000 | 0.308 | 0.143 | 2 | 1 | 0 |"


def test_the_chart_leaves_out_waste_where_nothing_was_sent() -> None:
    silent = Trial("openai", [Sample(0, 0, 0), Sample(1, 1, 1), Sample(2, 1, 1)], 0, 0, None)
    goodput, waste = chart([silent], SETUP).panels
    assert goodput.lines[LABELS["openai"]] == [(1, 100.0), (2, 0.0)]
    assert waste.lines[LABELS["openai"]] == [(1, 50.0), (2, None)]


async def test_the_cookbook_loop_tries_a_row_five_times_and_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CookbookLoop, "_PAUSE_SECONDS", 0.0)
    options = Options(completions=2, limit=RateLimit(1e-3, burst=1))
    async with Simulator(options) as simulator:
        job = Job(simulator.base_url, completion_ids(2), 1e5, Tally())
        async with asyncio.timeout(30):
            await CookbookLoop(job, 1e5).run()
        assert (job.tally.updated, job.tally.given_up) == (1, 1)
        assert simulator.counters.throttled == 5


def test_the_adaptive_rate_falls_by_what_is_documented_and_comes_back() -> None:
    rate = AdaptiveRate(0.0)
    assert rate.wait_seconds(0.0) == 0.0  # nothing is held back before the first throttled answer
    for number in range(1, 101):
        rate.answered(number / 10, throttled=False)
    rate.answered(10.0, throttled=True)
    fallen = rate.per_second
    assert fallen == pytest.approx(0.7 * 10.0, rel=0.3)
    assert rate.enabled
    for number in range(1, 51):
        rate.answered(10.0 + number / 10, throttled=False)
    assert rate.per_second > fallen
    assert rate.wait_seconds(15.0) == 0.0
    assert sum(rate.wait_seconds(15.0) == 0.0 for _ in range(100)) < 30


def test_the_adaptive_retry_quota_runs_out_and_is_given_back() -> None:
    quota = RetryQuota()
    assert sum(quota.take() for _ in range(200)) == 100
    quota.succeeded(retried=True)
    assert quota.take()
    assert not quota.take()


async def test_a_contender_that_runs_out_of_rows_is_a_failed_trial() -> None:
    with pytest.raises(TrialFailed, match="cookbook-half ended before its time, with 0: no rows left"):
        await run_trial("cookbook-half", Setup(per_minute=60_000, seconds=60, update_latency="0", rows=3))


async def test_a_simulator_that_does_not_start_is_a_failed_trial() -> None:
    with pytest.raises(TrialFailed, match=r"the simulator did not start: .*'soon' is no duration"):
        await run_trial("openai", Setup(per_minute=60, seconds=1, update_latency="soon", rows=3))


@pytest.mark.parametrize(
    ("names", "flags"),
    [(["metasync", "openai"], ["--side-by-side"]), (["cookbook-half"], [])],
    ids=["side by side", "one after the other"],
)
def test_a_short_run_reports_and_draws_every_contender(tmp_path: Path, names: list[str], flags: list[str]) -> None:
    results, drawing = tmp_path / "new" / "flow.json", tmp_path / "flow.svg"
    command = [*BENCH, "--minutes", "0.03", "--results", str(results), "--chart", str(drawing), *flags]
    command += ["--contenders", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    contenders = json.loads(results.read_text())["contenders"]
    assert list(contenders) == names
    for name, figures in contenders.items():
        assert figures["goodput"] > 0
        assert figures["samples"][-1]["accepted"] > 0
        assert figures["samples"][-1]["at_seconds"] >= 1.8
        assert figures["lost"] == (0 if name == "metasync" else None)
        assert f"| {LABELS[name]} |" in done.stdout
    for panel in (1, 2):
        assert set(_lines(drawing.read_text(), panel)) == {LABELS[name] for name in names}


def test_a_bench_that_is_terminated_leaves_no_process(tmp_path: Path) -> None:
    command = [
        *BENCH,
        "--minutes",
        "0.5",
        "--contenders",
        "metasync",
        "--chart",
        str(tmp_path / "x.svg"),
        "--results",
        str(tmp_path / "x"),
    ]
    with stopped(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"metasync: at work for 30 s\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("flags", [["--minutes", "0"], ["--per-minute", "-1"], ["--contenders", "nobody"]])
def test_flags_that_make_no_sense_are_refused(flags: list[str]) -> None:
    done = subprocess.run([*BENCH, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert flags[0] in done.stderr
