import os

import pytest


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the test run's own variables, such as METASYNC_TEST_SKIPS, from the settings."""
    for name in list(os.environ):
        if name.startswith(("METASYNC_", "OPENAI_")):
            monkeypatch.delenv(name)
