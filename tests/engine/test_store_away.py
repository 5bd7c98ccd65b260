"""The worker waits for a store that goes away; it neither dies nor hangs, and nothing is lost."""

import asyncio

import pytest

from tests.engine.conftest import Bench
from tests.engine.wrapping import WrappedQueue
from worker.changes import MetadataChange
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


async def test_a_worker_waits_at_its_start_until_the_store_answers(bench: Bench) -> None:
    bench.simulator.seed("chatcmpl-1")
    await bench.put("chatcmpl-1", {"grade": "A"}, mode="replace")
    queue = WrappedQueue(bench.queue)
    queue.unavailable |= {"read_notes", "claim", "write_note", "next_due_seconds"}
    worker = bench.worker(queue=queue)
    running = asyncio.create_task(worker.run())
    while not any(event["operation"] == "begin" for event in bench.events("store.unavailable")):
        await asyncio.sleep(0.01)
    assert worker.flow_state() is not None
    queue.unavailable.clear()
    assert (await running).totals.applied == 1


async def test_a_drain_whose_store_stays_away_ends_and_says_so(bench: Bench) -> None:
    bench.simulator.seed("chatcmpl-1")
    await bench.put("chatcmpl-1", {"grade": "A"}, mode="replace")
    queue = WrappedQueue(bench.queue)
    queue.unavailable |= {"claim", "next_due_seconds", "write_note"}
    summary = await bench.worker(queue=queue, halt_timeout_seconds=0.3).run()
    assert (summary.ending, summary.empty) == (Ending.STORE_AWAY, False)


async def test_a_worker_that_is_stopped_while_the_store_is_away_ends(bench: Bench) -> None:
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


async def test_a_bug_that_one_claim_meets_spares_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"chatcmpl-{number}" for number in range(20)]
    bench.simulator.seed_completions(ids)
    await bench.queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in ids])
    update = bench.client.update

    async def broken(completion_id: str, *args: object, **kwargs: object) -> object:
        if completion_id == ids[0]:
            raise ZeroDivisionError
        return await update(completion_id, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(bench.client, "update", broken)
    summary = await bench.drain(halt_timeout_seconds=0.5)
    assert (summary.ending, summary.totals.applied, summary.totals.dead) == (Ending.STUCK, 19, 0)
    assert summary.left == {ids[0]: "internal error: ZeroDivisionError"}
    assert bench.events("change.crashed")


async def test_a_bug_that_every_claim_meets_halts_and_kills_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"chatcmpl-{number}" for number in range(20)]
    await bench.queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in ids])

    async def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.client, "update", broken)
    summary = await bench.drain(max_attempts=1, give_up_after_seconds=0.0, halt_timeout_seconds=0.5, max_concurrency=1)
    assert (summary.ending, summary.reason, summary.totals.dead) == (Ending.HALTED, "internal_error", 0)
    assert (await bench.queue.status()).pending == 20
    assert len(bench.events("change.crashed")) == 5 + 1  # and the probe, which was due at once
