import os
from pathlib import Path

import pytest

from tests.e2e.processes import Command


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command in an empty folder, with nothing set."""
    return Command(tmp_path, {})


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory of this process, with nothing set."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):  # variables of the test run, such as METASYNC_TEST_SKIPS
        if name.startswith(("METASYNC_", "OPENAI_")):
            monkeypatch.delenv(name)
    return tmp_path
