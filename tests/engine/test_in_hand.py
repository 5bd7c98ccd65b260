"""Held claims are bounded in bytes, even if the worker may hold many."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.engine.virtual import Stage
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.changes import MetadataChange
from worker.queue import Settlement
from worker.queue.pending import MAX_BYTES_PER_CALL

COMPLETIONS, EACH = 7, 900  # some 52 MB
HELD_BYTES = 32 * 1024 * 1024


# With one emoji, all characters of a text take four bytes in memory.
@pytest.mark.parametrize(("last", "width"), [("v", 1), ("\N{GRINNING FACE}", 4)], ids=["letters", "an emoji"])
@in_virtual_time
async def test_the_bytes_of_held_claims_are_bounded_while_the_service_hangs(last: str, width: int) -> None:
    largest = {f"key-{number:02d}": "v" * 511 + last for number in range(16)}  # more is refused
    stage = Stage()
    stage.service.latency_seconds = 600.0
    for number in range(COMPLETIONS):
        await stage.queue.put([MetadataChange(f"c-{number}", largest, "replace")] * EACH)
    worker = stage.worker(drain=False, max_concurrency=64, request_timeout_seconds=900.0)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    [holder] = await stage.queue.leases()
    size_bytes = sys.getsizeof(msgspec.json.encode(largest).decode())
    worker.stop()
    await running

    at_once = width * MAX_BYTES_PER_CALL
    assert HELD_BYTES - at_once < holder.changes * size_bytes < HELD_BYTES + at_once


class _Counted(WrappedQueue):
    """A slow queue that counts what is settled at once."""

    most = 0

    async def settle(self, settlements: Sequence[Settlement], **terms: Any) -> list[Settlement]:
        self.most = max(self.most, len(settlements))
        await asyncio.sleep(30.0)
        return await super().settle(settlements, **terms)


@in_virtual_time
async def test_few_outcomes_are_settled_at_once_however_many_are_claimed() -> None:
    stage = Stage()
    queue = _Counted(stage.queue)
    await stage.put(*(f"c-{number}" for number in range(600)))
    worker = stage.worker(queue=queue, max_concurrency=600, batch_size=600)
    assert (await worker.run()).empty
    assert queue.most == 256


class _SlowToRecord(WrappedQueue):
    """A queue that takes ten seconds to settle, and notes how many requests were made by then."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.queue)
        self._service = stage.service
        self.made: list[int] = []

    async def settle(self, settlements: Sequence[Settlement], **terms: Any) -> list[Settlement]:
        await asyncio.sleep(10.0)
        self.made.append(self._service.count())
        return await super().settle(settlements, **terms)


@in_virtual_time
async def test_while_one_batch_is_recorded_two_are_worked_on() -> None:
    stage = Stage()
    queue = _SlowToRecord(stage)
    stage.service.latency_seconds = 0.001
    await stage.put(*(f"c-{number}" for number in range(100)))
    assert (await stage.worker(queue=queue, max_concurrency=4, batch_size=20).run()).empty
    assert queue.made == [60, 80, 100, 100, 100]


@in_virtual_time
async def test_a_service_that_hangs_leaves_other_workers_their_share() -> None:
    stage = Stage()
    stage.service.latency_seconds = 600.0
    await stage.put(*(f"c-{number}" for number in range(100)))
    worker = stage.worker(drain=False, max_concurrency=4, batch_size=20, request_timeout_seconds=900.0)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    [holder] = await stage.queue.leases()
    worker.stop()
    await running
    assert holder.completions == 40  # a batch, and a second one as the first is nearly in flight


@in_virtual_time
async def test_claims_are_bounded_while_nothing_can_be_recorded() -> None:
    stage = Stage()
    queue = WrappedQueue(stage.queue)
    queue.unavailable.add("settle")
    stage.service.latency_seconds = 0.001
    await stage.put(*(f"c-{number}" for number in range(200)))
    worker = stage.worker(queue=queue, drain=False, max_concurrency=4, batch_size=20)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    [holder] = await stage.queue.leases()
    queue.unavailable.clear()
    await asyncio.sleep(60.0)
    worker.stop()
    assert (await running).totals.applied == 200
    assert holder.completions == 60
