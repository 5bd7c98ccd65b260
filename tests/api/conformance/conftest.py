"""Every test in this folder runs with both transports."""

import aiohttp
import pytest


@pytest.fixture(params=["direct", "session"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client's transport. An unknown release of aiohttp makes the client use the session."""
    if request.param == "session":
        monkeypatch.setattr(aiohttp, "__version__", "4.0.0")
    return str(request.param)
