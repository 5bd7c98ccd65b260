"""Instructions by layer: the arithmetic, and that each step runs; callgrind's counts are not tested."""

import asyncio
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.running import server
from config import logs


def test_a_layer_is_what_its_step_takes_beyond_those_it_is_built_upon() -> None:
    counted = {"flow": 10.0, "engine": 50.0, "store": 90.0, "verdict": 7.0, "transport": 120.0, "log": 150.0}
    alone = {"flow": 10.0, "engine": 40.0, "store": 40.0, "verdict": 7.0, "transport": 23.0, "log": 30.0}
    assert instructions.layers(counted) == alone
    assert instructions.table(counted).splitlines()[-1] == "| all | 150 | |"


@pytest.mark.parametrize("step", instructions.STEPS)
def test_each_step_makes_its_updates_and_counts_some(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(instructions, "WARM_UP", 10)
    monkeypatch.setattr(instructions, "COUNTED", 5)
    run, _ = instructions.STEPS[step]
    if step in instructions.WITH_A_FILE:
        asyncio.run(instructions.fill(tmp_path, 20))
    said: list[str] = []
    middle = instructions.Middle(lambda: said.append("begin"), lambda: said.append("end"))
    with server() as answering:
        asyncio.run(run(20, middle, answering.base_url, tmp_path))  # raises unless all 20 are applied
    assert said == ["begin", "end"]
