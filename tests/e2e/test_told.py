"""What one worker process is told by the service, the others hear of by way of the store."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, stopped, wait_for_event
from tests.queue.stores import STORES
from worker import MetadataChange, open_queue


@pytest.mark.parametrize("store", sorted(STORES))
async def test_a_key_that_is_refused_to_one_halts_the_other_until_its_own_gets_through(
    store: str, tmp_path: Path
) -> None:
    ids = [f"chatcmpl-{number}" for number in range(2_000)]
    async with STORES[store](tmp_path) as url:
        async with open_queue(url) as queue:
            await queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in ids])
        with running_simulator(tmp_path, "--api-key", KEY, "--latency", "100ms") as simulator:
            simulator.ask("/seed", {"ids": ids})
            settings = {
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": simulator.base_url,
                "METASYNC_QUEUE_URL": url,
                "METASYNC_BATCH_SIZE": "4",
                "METASYNC_MAX_CONCURRENCY": "4",
                "METASYNC_LOG_FORMAT": "json",
                "METASYNC_LOG_LEVEL": "warning",
            }
            good = Command(tmp_path, settings)
            bad = replace(good, settings=settings | {"OPENAI_API_KEY": "sk-refused-0123456789"})
            with stopped(good.start("run", "--log-level", "info")) as worker:
                wait_for_event(worker, "change.applied")  # what happened before it started is no news to it
                with stopped(bad.start("run")) as refused:
                    assert wait_for_event(refused, "worker.halted")["reason"] == "unauthorized"
                    assert wait_for_event(worker, "worker.halted")["reason"] == "unauthorized"
                    assert wait_for_event(worker, "worker.resumed")["reason"] == "unauthorized"
