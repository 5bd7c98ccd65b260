"""A plain HTTP client, for what the official one would hide."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.simulator.http import Http


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test"}) as session:
        yield Http(session)
