"""Flow control against simulated limiters: the ranges that `scenarios/*.yaml` assert, in virtual time."""

import statistics
from pathlib import Path

import pytest

from tests.flow.scenario import Scenario, load, play

_FILES = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("scenario", [s for path in _FILES for s in load(path)], ids=lambda scenario: scenario.name)
def test_a_scenario_keeps_its_ranges(scenario: Scenario) -> None:
    measured = [play(scenario, seed).measures(scenario) for seed in scenario.seeds]
    off = {}
    for measure, (low, high) in {"early": (0, 0), **scenario.expect}.items():
        figures = [each[measure] for each in measured]
        if not all(low <= figure <= high for figure in figures):
            off[measure] = (figures, f"not all in [{low}, {high}]")
    for measure, (low, high) in scenario.median.items():
        median = statistics.median(each[measure] for each in measured)
        if not low <= median <= high:
            off[f"median of {measure}"] = ([median], f"not in [{low}, {high}]")
    assert not off


def test_the_same_seed_gives_the_same_outcome() -> None:
    scenario = Scenario(name="any", expect={}, seconds=60)
    assert play(scenario, seed=7).accepted == play(scenario, seed=7).accepted
