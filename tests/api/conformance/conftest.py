"""Everything in this folder holds for both ways to the service."""

import aiohttp
import pytest


@pytest.fixture(params=["direct", "session"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way that the client takes: the session's is that of a release of aiohttp that it does not know."""
    if request.param == "session":
        monkeypatch.setattr(aiohttp, "__version__", "4.0.0")
    return str(request.param)
