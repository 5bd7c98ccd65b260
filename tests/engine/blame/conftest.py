"""Hours of trouble, without what is nobody's fault."""

import pytest


@pytest.fixture(autouse=True)
def nobody_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look for a pause each second: a tenth of what these hours cost."""
    monkeypatch.setattr("worker.engine.pausing._EVERY_SECONDS", 60.0)
