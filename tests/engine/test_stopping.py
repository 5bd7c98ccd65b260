"""The end of a run: requests in flight finish, other claims are given back, nothing waits for a lease."""

import asyncio
from dataclasses import replace

from tests.engine.conftest import Bench
from worker.engine import Ending, Worker


async def _under_way(bench: Bench, worker: Worker, *, requests: int) -> asyncio.Task[object]:
    """Start the worker and wait until so many requests are in flight."""
    running = asyncio.create_task(worker.run())
    while bench.simulator.counters.in_flight < requests:
        assert not running.done()
        await asyncio.sleep(0.01)
    return running


async def _fill(bench: Bench, count: int) -> None:
    ids = [f"chatcmpl-{number}" for number in range(count)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")


async def test_at_a_stop_requests_in_flight_finish_and_other_claims_are_free_at_once(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, latency=0.3)
    await _fill(bench, 40)
    worker = bench.worker(max_concurrency=8, requests_per_minute=None)
    running = await _under_way(bench, worker, requests=1)
    worker.stop()
    await running
    applied = worker.totals.applied
    assert 1 <= applied <= 16
    assert bench.simulator.counters.updates_applied == applied
    status = await bench.queue.status()
    assert (status.pending, status.in_flight, status.waiting) == (40 - applied, 0, 0)
    assert (await bench.drain()).totals.applied == 40 - applied


async def test_a_request_that_outlasts_the_grace_is_cut_off_and_its_change_kept(bench: Bench) -> None:
    await _fill(bench, 1)
    bench.simulator.fail_next("hang")
    worker = bench.worker(shutdown_grace_seconds=0.2)
    running = await _under_way(bench, worker, requests=1)
    worker.stop()
    summary = await running
    assert worker.totals.applied == 0
    status = await bench.queue.status()
    assert (status.pending, status.in_flight, status.waiting) == (1, 0, 1)  # the service may still be at work on it
    assert not summary.empty  # type: ignore[attr-defined]  # a task's result


async def test_a_run_ends_when_its_time_is_up(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, latency=0.05)
    await _fill(bench, 500)
    summary = await bench.drain(max_duration_seconds=0.3, max_concurrency=2)
    assert summary.ending is Ending.MAX_DURATION
    assert not summary.empty
    status = await bench.queue.status()
    assert (status.pending, status.in_flight) == (500 - summary.totals.applied, 0)


async def test_a_drain_of_an_empty_queue_ends_at_once(bench: Bench) -> None:
    summary = await bench.drain()
    assert (summary.ending, summary.empty, summary.requests) == (Ending.DRAINED, True, 0)


async def test_a_daemon_applies_later_changes_until_it_is_stopped(bench: Bench) -> None:
    bench.simulator.seed("chatcmpl-1")
    worker = bench.worker(drain=False)
    running = asyncio.create_task(worker.run())
    for grade in "ABC":
        await bench.put("chatcmpl-1", {"grade": grade})
        while bench.simulator.metadata("chatcmpl-1") != {"grade": grade}:
            await asyncio.sleep(0.01)
    worker.stop()
    assert (await running).ending is Ending.STOPPED


async def test_a_cancelled_worker_ends_and_loses_nothing(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, latency=0.3)
    await _fill(bench, 10)
    running = await _under_way(bench, bench.worker(lease_seconds=0.5), requests=1)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert (await bench.drain()).empty
    assert bench.simulator.all_metadata() == {f"chatcmpl-{number}": {"grade": "A"} for number in range(10)}
