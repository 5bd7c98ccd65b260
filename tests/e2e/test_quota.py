"""Four worker processes share one limit, over real sockets and on every store."""

import asyncio
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, stopped
from tests.queue.stores import STORES
from worker import MetadataChange, open_queue
from worker.queue.notes import at_work

WORKERS = 4
PER_MINUTE = 600
SECONDS = 40.0  # one request more or less is a quarter of a hundredth


@pytest.mark.parametrize("store", sorted(STORES))
async def test_four_workers_use_what_one_limit_allows_and_no_more(store: str, tmp_path: Path) -> None:
    ids = [f"chatcmpl-{number}" for number in range(int(PER_MINUTE / 60 * (SECONDS + 60)))]
    async with STORES[store](tmp_path) as url:
        async with open_queue(url) as queue:
            await queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in ids])
        with (
            running_simulator("--limit", str(PER_MINUTE), "--latency", "100ms") as simulator,
            ExitStack() as ends,
        ):
            simulator.ask("/seed", {"ids": ids})

            def counts() -> tuple[float, int, int]:
                counters = simulator.ask("/counters")["counters"]
                return time.monotonic(), counters["updates_applied"], counters["throttled"]

            command = Command(
                tmp_path,
                {
                    "OPENAI_API_KEY": KEY,
                    "OPENAI_BASE_URL": simulator.base_url,
                    "METASYNC_QUEUE_URL": url,
                    "METASYNC_REQUESTS_PER_MINUTE": str(PER_MINUTE),
                    "METASYNC_BATCH_SIZE": "16",
                },
            )
            for _ in range(WORKERS):
                ends.enter_context(stopped(command.start("run", stderr=subprocess.DEVNULL)))
            async with open_queue(url) as queue:
                while len(at_work(await queue.read_notes())) < WORKERS:
                    await asyncio.sleep(0.1)
            begun = counts()[1]
            while counts()[1] < begun + 3 * PER_MINUTE / 60:  # the burst of the start is over
                await asyncio.sleep(0.1)
            since, applied_before, refused_before = counts()
            await asyncio.sleep(SECONDS)
            until, applied, refused = counts()
    allowed = PER_MINUTE / 60 * (until - since)
    late = PER_MINUTE / 60  # a permit may be used up to a second after it was due: before the time that is measured
    assert 0.97 * allowed <= applied - applied_before <= allowed + late, (allowed, applied - applied_before, refused)
    assert refused - refused_before < 0.01 * (applied - applied_before)
