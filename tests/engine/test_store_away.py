"""A store that goes away is waited for; it neither kills nor wedges the worker, and nothing is lost."""

import asyncio

import pytest

from tests.engine.conftest import Bench
from tests.engine.wrapping import WrappedQueue
from worker.engine import Ending


@pytest.mark.parametrize("operation", ["claim", "settle", "extend", "next_due_seconds"])
async def test_work_goes_on_when_the_store_comes_back(bench: Bench, operation: str) -> None:
    ids = [f"chatcmpl-{number}" for number in range(20)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    bench.simulator.fail_next("hang")  # so that there is a lease to extend
    queue = WrappedQueue(bench.queue)
    queue.unavailable.add(operation)
    worker = bench.worker(queue=queue, lease_seconds=3, request_timeout_seconds=1.5)
    running = asyncio.create_task(worker.run())
    while queue.refused < 1:
        assert not running.done()
        await asyncio.sleep(0.01)
    queue.unavailable.clear()
    summary = await running
    assert summary.ending is Ending.DRAINED
    assert bench.simulator.all_metadata() == {completion_id: {"grade": "A"} for completion_id in ids}
    assert bench.simulator.violations == []
    assert bench.events("store.unavailable")


async def test_a_worker_that_is_stopped_while_the_store_is_away_ends_all_the_same(bench: Bench) -> None:
    bench.simulator.seed("chatcmpl-1")
    await bench.put("chatcmpl-1", {"grade": "A"}, mode="replace")
    queue = WrappedQueue(bench.queue)
    queue.unavailable.add("settle")
    worker = bench.worker(queue=queue, lease_seconds=1, shutdown_grace_seconds=0.1)
    running = asyncio.create_task(worker.run())
    while not queue.refused:
        await asyncio.sleep(0.01)
    worker.stop()
    await asyncio.wait_for(running, 30)
    assert len(bench.events("worker.unrecorded")) == 1
    assert (await bench.drain()).empty  # the lease has run out, the change is done once more


async def test_a_fault_of_ours_in_one_claim_spares_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.simulator.seed_completions(["chatcmpl-1", "chatcmpl-2"])
    for completion_id in ("chatcmpl-1", "chatcmpl-2"):
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    update = bench.client.update

    async def broken(completion_id: str, *args: object, **kwargs: object) -> object:
        if completion_id == "chatcmpl-1":
            raise ZeroDivisionError
        return await update(completion_id, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(bench.client, "update", broken)
    summary = await bench.drain(max_attempts=2)
    assert (summary.totals.applied, summary.totals.reasons) == (1, {"attempts_exhausted": 1})
    [letter] = await bench.dead()
    assert letter.error == "internal error: ZeroDivisionError"
    assert len(bench.events("change.crashed")) == 2
