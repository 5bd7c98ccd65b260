"""Held claims are bounded in bytes, even if the worker may hold many."""

import asyncio

from tests.engine.virtual import Stage
from tests.virtual import in_virtual_time
from worker.changes import MetadataChange
from worker.queue.pending import MAX_BYTES_PER_CALL

LARGEST = {f"key-{number:02d}": "v" * 512 for number in range(16)}  # 8 KB: more is refused
COMPLETIONS, EACH = 7, 1_000  # some 58 MB
HELD_BYTES = 32 * 1024 * 1024


@in_virtual_time
async def test_the_bytes_of_held_claims_are_bounded_while_the_service_hangs() -> None:
    stage = Stage()
    stage.service.latency_seconds = 600.0
    for number in range(COMPLETIONS):
        await stage.queue.put([MetadataChange(f"c-{number}", LARGEST, "replace")] * EACH)
    worker = stage.worker(drain=False, max_concurrency=64, request_timeout_seconds=900.0)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    [holder] = await stage.queue.leases()
    size_bytes = len("".join(f'"{key}":"{value}",' for key, value in LARGEST.items())) + 1
    worker.stop()
    await running

    assert HELD_BYTES - MAX_BYTES_PER_CALL < holder.changes * size_bytes < HELD_BYTES + MAX_BYTES_PER_CALL
