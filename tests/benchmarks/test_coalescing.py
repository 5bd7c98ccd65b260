"""The simulation behind docs/scale.md: how much folding can save."""

import asyncio

import pytest

from benchmarks import coalescing
from benchmarks.coalescing import Outcome, simulate, table


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "HORIZON_SECONDS", 900)
    monkeypatch.setattr(coalescing, "WARM_UP_SECONDS", 300)


@pytest.mark.parametrize("load", [0.5, 3.0])
def test_completions_that_get_one_change_save_nothing(load: float) -> None:
    outcome = asyncio.run(simulate(load, 1))
    assert outcome.changes == outcome.requests > 0
    assert (outcome.behind > 60) == (load > 1)


def test_a_queue_that_keeps_up_folds_little_and_one_that_does_not_folds_much() -> None:
    assert asyncio.run(simulate(0.5, 10)).saved < 0.1
    assert asyncio.run(simulate(3.0, 10)).saved > 0.3


def test_the_table_has_a_row_a_load() -> None:
    outcomes = [[Outcome(100, 50, 90.0), Outcome(100, 100, 0.0), Outcome(0, 0, 600.0)] for _ in coalescing.LOADS]
    assert table(outcomes).splitlines()[2] == "| 0.5 | 50% | 90 s | 0% | 0 s | 0% | 10 min |"
