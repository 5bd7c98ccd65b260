"""A worker with a loop that dies: it winds down at once, gives back its claims, and raises the loop's error."""

import asyncio

import pytest

from tests.engine.virtual import Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.queue import Note, QueueMisnamed


class _Breaking(WrappedQueue):
    """A queue with an operation that fails for good after five seconds."""

    breaks: str | None = None
    error: Exception = QueueMisnamed("it is a directory now")

    def _check(self, operation: str) -> None:
        if operation == self.breaks:
            raise self.error

    async def read_notes(self) -> dict[str, Note]:
        self._check("read_notes")
        return await super().read_notes()


async def _work_until_it_breaks(stage: Stage, operation: str, *, latency_seconds: float) -> None:
    """A worker with twelve claims, eight of them in flight, whose store breaks; returns when it has ended."""
    await stage.put(*ids(12))
    stage.service.latency_seconds = latency_seconds
    queue = _Breaking(stage.queue)
    worker = stage.worker(queue=queue, drain=False, lease_seconds=300.0, request_timeout_seconds=250.0)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(5.0)
    assert (stage.service.count(), (await stage.queue.status()).in_flight) == (8, 12)
    queue.breaks = operation
    await asyncio.wait([running])
    assert running.exception() is queue.error  # the error itself, not a group


@in_virtual_time
@pytest.mark.parametrize(
    ("operation", "loop", "dies_at"),
    [("extend", "heartbeat", 75.0), ("next_due_seconds", "reader", 6.0), ("read_notes", "sharing", 5.5)],
)
async def test_a_worker_whose_loop_dies_gives_back_what_it_held_and_waits_for_nothing(
    operation: str, loop: str, dies_at: float
) -> None:
    stage = Stage()
    await _work_until_it_breaks(stage, operation, latency_seconds=200.0)
    assert stage.now == pytest.approx(dies_at, abs=0.5)
    assert [event["loop"] for event in stage.events("loop.died")] == [loop]
    status = await stage.queue.status()
    assert (status.pending, status.in_flight, status.waiting) == (12, 0, 8)  # claims that were cut off are due later
    assert await stage.attempts() == [0] * 12


@in_virtual_time
async def test_a_worker_whose_recorder_dies_leaves_its_claims_to_their_leases_and_says_so() -> None:
    stage = Stage()
    await _work_until_it_breaks(stage, "settle", latency_seconds=50.0)
    assert stage.now == pytest.approx(56.0, abs=1.0)  # it does not wait five seconds for the recorder
    assert [event["loop"] for event in stage.events("loop.died")] == ["recorder"]
    assert [event["claims"] for event in stage.events("worker.unrecorded")] == [12]
    assert await stage.attempts() == [0] * 12
