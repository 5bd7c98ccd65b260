"""The benchmarks of the drain and the stores still run, and print what they should."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import benchmarks.__main__
import benchmarks.stores
from benchmarks.cases import CASES
from benchmarks.profile import without_paths, without_slivers
from benchmarks.report import insert, table
from benchmarks.running import METASYNC
from benchmarks.stores import check_room

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a benchmark in this process, which has imported what it draws with; gives what it prints."""

    def run(main: Callable[[], None], *words: str) -> str:
        # An environment of its own would take a package index.
        monkeypatch.setenv("METASYNC_BENCH_COMMAND", str(METASYNC))
        monkeypatch.chdir(ROOT)
        (tmp_path / "performance.md").write_text((ROOT / "docs" / "performance.md").read_text())
        monkeypatch.setattr(sys, "argv", ["bench", *words, "--docs", str(tmp_path)])
        main()
        return capsys.readouterr().out

    return run


UPDATES = {"woken": 2}  # about a second each; the fewest that have percentiles


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_writes_its_figures_its_table_and_its_chart(
    tmp_path: Path, name: str, bench: Callable[..., str]
) -> None:
    words = ["--updates", str(UPDATES.get(name, 40)), "--runs", "1", "--results", str(tmp_path)]
    printed = bench(benchmarks.__main__.main, name, *words)
    contenders = json.loads((tmp_path / f"{name}.json").read_text())["contenders"]
    page = (tmp_path / "performance.md").read_text()
    drawing = (tmp_path / "performance" / f"{name}.svg").read_text()
    for contender, (figures,) in contenders.items():
        assert all(figures[column] >= 0 for column in CASES[name].columns)
        assert figures[next(iter(CASES[name].columns))] > 0
        assert f"| {contender} |" in printed
        assert f"| {contender} |" in page
    assert drawing.count('id="bar ') == len(contenders)


def test_the_benchmark_of_the_stores_compares_sizes_and_an_open_transaction(
    tmp_path: Path, bench: Callable[..., str]
) -> None:
    words = ["--sizes", "200", "400", "--batches", "3", "--urgent-pending", "300"]
    printed = bench(benchmarks.stores.main, *words, "--results", str(tmp_path / "queue.json"))
    found = json.loads((tmp_path / "queue.json").read_text())
    medians = found["milliseconds"]
    sizes = {f"{store}, {size}" for store in ("SQLite", "PostgreSQL", "Valkey") for size in (200, 400)}
    assert set(medians) == sizes | {f"{store}, 200, a transaction open" for store in ("SQLite", "PostgreSQL")}
    assert all(steps[step] > 0 for steps in medians.values() for step in ("enqueue", "claim", "finish"))
    urgent = found["urgent_milliseconds"]
    assert set(urgent) == {f"{store}, 300" for store in ("SQLite", "PostgreSQL", "Valkey")}
    assert all(0 < milliseconds < 2_000 for times in urgent.values() for milliseconds in times)
    assert all(f"| {label} |" in printed for label in urgent)


def test_a_table_compares_runs_of_one_round() -> None:
    measured = {"ours": [{"rate": 2.0}, {"rate": 20.0}], "theirs": [{"rate": 1.0}, {"rate": 10.0}]}
    assert table(measured, {"rate": "updates/s"}).splitlines()[2:] == [
        "| ours | 11 (2 to 20) | 1.00 times |",
        "| theirs | 5.5 (1 to 10) | 2.00 times |",
    ]


def test_a_table_goes_nowhere_but_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one: begin -->\nold\n<!-- one: end -->\nafter\n")
    insert(page, "one", "new")
    assert page.read_text() == "before\n<!-- one: begin -->\nnew\n<!-- one: end -->\nafter\n"
    with pytest.raises(ValueError, match="no place for two"):
        insert(page, "two", "new")


def test_a_profile_names_no_folder_of_the_machine() -> None:
    drawing = f"<title>run ({ROOT}/worker/cli/run.py:3)</title><title>x (/opt/lib/python3.11/asyncio/x.py:1)</title>"
    assert without_paths(drawing) == "<title>run (worker/cli/run.py:3)</title><title>x (asyncio/x.py:1)</title>"


def test_a_profile_leaves_out_what_took_next_to_nothing() -> None:
    wide, narrow = (f"<g><title>f (x.py:1) (9 samples, {share}%)</title><rect/></g>" for share in ("0.30", "0.29"))
    assert without_slivers(f"<svg>{wide}{narrow}{wide}</svg>") == f"<svg>{wide}{wide}</svg>"


def test_a_table_compares_contenders_of_a_kind_or_none() -> None:
    measured = {name: [{"rate": rate}] for name, rate in (("a", 1.0), ("a2", 2.0), ("b", 4.0), ("b2", 2.0))}
    ratios = [line.split("|")[-2].strip() for line in table(measured, {"rate": "updates/s"}, compared=2).splitlines()]
    assert ratios == ["the first of its kind is", "---:", "1.00 times", "0.50 times", "1.00 times", "2.00 times"]
    assert "times" not in table(measured, {"rate": "updates/s"}, compared=0)


def test_stores_too_large_for_the_machine_are_refused_before_they_fill_it() -> None:
    check_room([1_000], 1_000)
    with pytest.raises(SystemExit, match=r"need up to .* GB of .* free: take smaller --sizes"):
        check_room([10**12], 1_000)
    with pytest.raises(SystemExit, match=r"and --urgent-pending"):
        check_room([1_000], 10**12)
