"""The worker waits for a store that goes away; it neither dies nor hangs, and nothing is lost."""

import asyncio
from typing import Any

import pytest

from tests.engine.conftest import Bench
from tests.engine.parts import running
from tests.engine.virtual import Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.api import Kind, Verdict
from worker.changes import MetadataChange
from worker.engine import Ending
from worker.queue import Claim, QueueUnwritable
from worker.queue.notes import PAUSE


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


class _FullDisk(WrappedQueue):
    """A store that can be read; with a full disk, claims and settlements that would write fail.

    It tells of work all the time, as if others used it: so claims in vain are many.
    """

    is_full = False

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        await asyncio.sleep(timeout_seconds)
        return True

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        if self.is_full and terms["place"] != "urgent":
            due_seconds = await self.queue.next_due_seconds()
            if due_seconds is not None and due_seconds <= 0.0:
                raise QueueUnwritable("the disk is full")
        return await super().claim(limit, **terms)

    def fill(self) -> None:
        self.is_full = True
        self.unavailable |= {"settle", "extend", "write_note"}

    def make_room(self) -> None:
        self.is_full = False
        self.unavailable.clear()


_TIMEOUT_SECONDS = 10.0
_SOON_SECONDS = 7.0  # the longest pause between two tries, and a margin
_LONG_SECONDS = 3_600.0


@pytest.mark.parametrize("in_flight", [1, 3, 50])
@in_virtual_time
async def test_a_drain_that_can_claim_but_not_settle_ends(in_flight: int) -> None:
    stage = Stage()
    queue = _FullDisk(stage.queue)
    await stage.put(*ids(in_flight))
    queue.unavailable.add("settle")
    worker = stage.worker(queue=queue, halt_timeout_seconds=_TIMEOUT_SECONDS, max_concurrency=50)
    async with asyncio.timeout(_LONG_SECONDS):
        summary = await worker.run()
    assert summary.ending is Ending.STORE_AWAY
    assert sum(worker.tallies.store_seconds["claim"].counts) > _TIMEOUT_SECONDS  # in vain, but with success


@pytest.mark.parametrize("in_flight", [1, 3, 50])
@in_virtual_time
async def test_the_store_of_a_daemon_is_away_for_as_long_as_nothing_can_be_settled(in_flight: int) -> None:
    stage = Stage()
    queue = _FullDisk(stage.queue)
    await stage.put(*ids(in_flight))
    worker = stage.worker(queue=queue, drain=False, max_concurrency=50)
    queue.unavailable |= {"settle", "extend", "write_note"}
    with running(worker.run()):
        await asyncio.sleep(1.0)
        for _ in range(600):  # beyond the lease, and beyond many a claim in vain
            assert worker.tallies.store_error == "the store is away"
            await asyncio.sleep(1.0)
        assert worker.tallies.store_away_seconds > 590.0
        queue.make_room()
        await asyncio.sleep(_SOON_SECONDS)
        assert worker.tallies.store_error is None
        await asyncio.sleep(_LONG_SECONDS)
        assert (await stage.queue.status()).pending == 0


@in_virtual_time
async def test_a_claim_in_vain_does_not_hide_that_others_fail() -> None:
    stage = Stage()
    stage.service.latency_seconds = 50.0
    queue = _FullDisk(stage.queue)
    await stage.put("chatcmpl-held")
    worker = stage.worker(queue=queue, halt_timeout_seconds=_TIMEOUT_SECONDS)
    run = asyncio.create_task(worker.run())
    await asyncio.sleep(1.0)
    queue.fill()
    await stage.put("chatcmpl-due")  # each look for urgent ones beside the claim held succeeds
    await asyncio.sleep(_TIMEOUT_SECONDS + _SOON_SECONDS)
    assert (stage.service.count(), worker.stopping) == (1, True)
    assert worker.tallies.store_errors.keys() == {"claim"}
    assert (await run).ending is Ending.STORE_AWAY


@in_virtual_time
async def test_a_claim_that_failed_is_forgotten_when_nothing_is_due_any_more() -> None:
    stage = Stage()
    queue = _FullDisk(stage.queue)
    worker = stage.worker(queue=queue, drain=False)
    with running(worker.run()):
        await asyncio.sleep(1.0)
        queue.fill()
        await stage.put("chatcmpl-1")
        await asyncio.sleep(60.0)
        assert worker.tallies.store_error == "the disk is full"
        await stage.queue.claim(1, lease_seconds=60.0, owner="another")
        await asyncio.sleep(_SOON_SECONDS)
        assert worker.tallies.store_error is None


@in_virtual_time
async def test_a_lease_that_could_not_be_extended_is_forgotten_once_it_is_lost() -> None:
    stage = Stage()
    stage.service.latency_seconds = 55.0
    queue = _FullDisk(stage.queue)
    await stage.put("chatcmpl-1")
    worker = stage.worker(queue=queue, drain=False, lease_seconds=40.0)
    with running(worker.run()):
        await asyncio.sleep(1.0)
        queue.fill()
        await asyncio.sleep(20.0)
        assert worker.tallies.store_error == "the store is away"
        queue.unavailable.remove("settle")
        await asyncio.sleep(20.0)
        await stage.queue.claim(1, lease_seconds=_LONG_SECONDS, owner="another")
        await asyncio.sleep(60.0)
        assert worker.tallies.leases_lost == 1
        assert worker.tallies.store_error is None


@in_virtual_time
async def test_one_failed_heartbeat_ends_no_drain() -> None:
    stage = Stage()
    stage.service.latency_seconds = 55.0
    queue = _FullDisk(stage.queue)
    await stage.put("chatcmpl-1")
    worker = stage.worker(queue=queue, halt_timeout_seconds=_TIMEOUT_SECONDS, lease_seconds=100.0)
    run = asyncio.create_task(worker.run())
    queue.unavailable.add("extend")
    await asyncio.sleep(26.0)
    queue.unavailable.clear()
    assert (queue.refused, (await run).ending) == (1, Ending.DRAINED)


@in_virtual_time
async def test_what_failed_in_a_pause_is_forgotten_after_it() -> None:
    stage = Stage()
    queue = _FullDisk(stage.queue)
    await stage.queue.write_note(PAUSE, "")
    worker = stage.worker(queue=queue, drain=False)
    with running(worker.run()):
        await asyncio.sleep(3.0)
        queue.unavailable.add("read_note")
        await asyncio.sleep(3.0)
        assert worker.tallies.store_error == "the store is away"
        await stage.queue.write_note(PAUSE, None)  # which the worker sees among all the notes
        await asyncio.sleep(60.0)
        assert worker.standstill() is None
        assert worker.tallies.store_error is None


@in_virtual_time
async def test_a_drain_whose_store_goes_away_while_all_is_deferred_ends() -> None:
    stage = Stage()
    broken, *well = ids(20)
    error = Verdict(Kind.RETRY, 500, error="broken")
    stage.service.trouble = lambda request: error if request.completion_id == broken else None
    queue = _FullDisk(stage.queue)
    await stage.put(broken, *well)
    worker = stage.worker(queue=queue, halt_timeout_seconds=_TIMEOUT_SECONDS)
    run = asyncio.create_task(worker.run())
    while (await stage.queue.status()).waiting != 1:
        await asyncio.sleep(0.1)
    queue.unavailable.add("next_due_seconds")
    async with asyncio.timeout(_LONG_SECONDS):
        assert (await run).ending is Ending.STORE_AWAY
