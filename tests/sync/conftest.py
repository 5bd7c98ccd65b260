from collections.abc import AsyncIterator

import pytest

from tests.sync.house import House
from worker.api import Client
from worker.simulator import Options, Simulator


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A simulated service, a client, and what asks it."""
    async with (
        Simulator(Options(seed=1)) as simulator,
        Client(base_url=simulator.base_url, api_key="sk-test") as client,
    ):
        yield House(simulator, client)
