from pathlib import Path

import pytest

from tests.e2e.processes import Command


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command in an empty folder, with nothing set."""
    return Command(tmp_path, {})
