"""A worker holds nothing of a finished claim, whose changes may be megabytes."""

import asyncio
import gc

from tests.engine.conftest import Bench
from worker.changes import MetadataChange
from worker.queue import Claim


async def test_an_idle_worker_holds_no_finished_claim_in_memory(bench: Bench) -> None:
    ids = [f"chatcmpl-of-this-test-{number}" for number in range(80)]
    bench.simulator.seed_completions(ids)
    bench.simulator.fail_next("internal_error", "dropped")
    worker = bench.worker(drain=False)
    running = asyncio.create_task(worker.run())
    await bench.queue.put([MetadataChange(completion_id, {"grade": "A"}) for completion_id in ids])
    while worker.totals.applied < len(ids):
        await asyncio.sleep(0.01)
    gc.collect()
    alive = [each.completion_id for each in gc.get_objects() if isinstance(each, Claim) and each.completion_id in ids]
    worker.stop()
    await running
    assert alive == []
