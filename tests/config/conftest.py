import os

import pytest


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests are run with, such as METASYNC_TEST_SKIPS, is not there for the settings to meet."""
    for name in list(os.environ):
        if name.startswith(("METASYNC_", "OPENAI_")):
            monkeypatch.delenv(name)
