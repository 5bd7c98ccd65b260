"""Commands that only read create no queue, in any store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.queue.helpers import change
from tests.queue.postgres_server import new_database
from tests.queue.stores import STORES
from worker.queue import QueueMisnamed, open_queue


@asynccontextmanager
async def _empty_database(_: Path) -> AsyncIterator[str]:
    async with new_database(empty=True) as url:
        yield url


PLACES = {**STORES, "postgres": _empty_database}


@pytest.mark.parametrize("store", PLACES)
async def test_a_look_at_a_store_without_a_queue_makes_none(store: str, tmp_path: Path) -> None:
    async with PLACES[store](tmp_path) as url:
        for _ in range(2):
            with pytest.raises(QueueMisnamed, match="there is no queue at"):
                async with open_queue(url, create=False):
                    pass
        async with open_queue(url) as queue:
            await queue.put([change("c-1")])

        async with open_queue(url, create=False) as queue:
            assert (await queue.status()).pending == 1
