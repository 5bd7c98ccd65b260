"""An empty queue of every backend."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.queue.conformance.backends import BACKENDS, Advance, Backend
from worker.queue import Store


@pytest.fixture(params=sorted(BACKENDS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with BACKENDS[request.param](tmp_path) as backend:
        yield backend


@pytest.fixture
def queue(backend: Backend) -> Store:
    return backend.queue


@pytest.fixture
def advance(backend: Backend) -> Advance:
    return backend.advance
