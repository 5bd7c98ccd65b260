"""Flow control against simulated limiters: the ranges that `scenarios/*.yaml` assert, in virtual time."""

from pathlib import Path

import pytest

from tests.flow.scenario import Scenario, load, play

_FILES = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("scenario", [s for path in _FILES for s in load(path)], ids=lambda scenario: scenario.name)
def test_a_scenario_keeps_its_ranges(scenario: Scenario) -> None:
    measured = play(scenario).measures(scenario)
    expected = {"early": (0, 0), **scenario.expect}
    off = {
        measure: (measured[measure], f"not in [{low}, {high}]")
        for measure, (low, high) in expected.items()
        if not low <= measured[measure] <= high
    }
    assert not off


def test_the_same_seed_gives_the_same_outcome() -> None:
    scenario = Scenario(name="any", expect={}, seconds=60)
    assert play(scenario, seed=7).accepted == play(scenario, seed=7).accepted
