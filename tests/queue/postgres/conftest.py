"""A database of each test's own, and who uses it."""

from collections.abc import AsyncIterator

import pytest

from tests.queue.postgres_server import connected, lent_database
from worker.queue.postgres import PostgresQueue
from worker.queue.postgres.connections import Connection


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with lent_database() as url:
        yield url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[PostgresQueue]:
    async with await PostgresQueue.open(url) as queue:
        yield queue


@pytest.fixture
async def producer(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection:
        yield connection


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Connection]:
    async with connected(url) as connection:
        yield connection
