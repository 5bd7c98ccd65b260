from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator() as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, simulator: RunningSimulator) -> Command:
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
    return Command(tmp_path, settings)
