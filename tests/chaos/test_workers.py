"""Workers that die, and workers that freeze past their leases, on every durable backend."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.crew import LEASE_SECONDS, Crew
from tests.queue.stores import STORES

KILLS = 6
FREEZES = 3


@pytest.mark.parametrize("store", STORES)
async def test_workers_that_die_or_stand_still_lose_nothing_and_never_meet(store: str, tmp_path: Path) -> None:
    rng = random.Random(4)
    blows = ["kill"] * KILLS + ["freeze"] * FREEZES
    rng.shuffle(blows)
    async with STORES[store](tmp_path) as url, Crew.at_work(tmp_path, rng, url) as crew:
        for blow in blows:
            await crew.put(40)
            await asyncio.sleep(rng.uniform(0.1, 0.5))  # a random moment is what this is about
            if blow == "kill":
                crew.kill_one()
            else:
                await crew.freeze_one(LEASE_SECONDS + rng.uniform(0.2, 0.6))
        await crew.check()
