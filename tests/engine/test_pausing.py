"""A paused queue: nothing starts, requests in flight end, and work goes on after the resume."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest

from tests.engine.parts import failed
from tests.engine.virtual import Request, Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.api import Answer, Kind, Verdict
from worker.engine import Ending, Worker
from worker.queue import QueueUnavailable, pause, resume
from worker.queue.notes import PAUSE

HEARD_SECONDS = 2.0
LONG_SECONDS = 600.0


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """A daemon at work; it is stopped at the end."""
    task = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await task


def starts_after(stage: Stage, at: float) -> int:
    return sum(request.at > at for request in stage.service.requests)


@in_virtual_time
async def test_a_pause_holds_within_two_seconds_and_all_is_done_after_a_resume() -> None:
    stage = Stage()
    await stage.put(*ids(2_000))
    async with running(stage.worker(drain=False, max_concurrency=4)):
        for _ in range(20):
            await asyncio.sleep(1.3)
            await pause(stage.queue, "ana@host", "deploy")
            paused_at = stage.now
            await asyncio.sleep(10.0)
            assert starts_after(stage, paused_at + HEARD_SECONDS) == 0
            status = await stage.queue.status()
            assert (status.in_flight, status.waiting) == (0, 0)
            await resume(stage.queue)
            resumed_at, requests = stage.now, stage.service.count()
            await asyncio.sleep(HEARD_SECONDS)
            assert stage.service.count() > requests, resumed_at
        await asyncio.sleep(LONG_SECONDS)
        assert (await stage.queue.status()).pending == 0
    assert len(stage.service.stored) == 2_000
    assert stage.service.count() == 2_000
    assert len(stage.events("queue.paused")) == len(stage.events("queue.resumed")) == 20


@in_virtual_time
async def test_an_idle_worker_looks_before_it_claims() -> None:
    stage = Stage()
    async with running(stage.worker(drain=False)):
        for tenths in range(0, 120, 4):  # it looks each twelve seconds, counted from its work
            await asyncio.sleep(60.0 + tenths / 10.0)
            await pause(stage.queue, "ana@host", None)
            await asyncio.sleep(HEARD_SECONDS)
            requests = stage.service.count()
            with patch.object(stage.queue, "claim", wraps=stage.queue.claim) as claim:
                await stage.put("chatcmpl-1")
                await asyncio.sleep(30.0)
            assert (stage.service.count(), claim.await_count) == (requests, 0)
            await resume(stage.queue)
            await asyncio.sleep(HEARD_SECONDS)
            assert stage.service.count() == requests + 1


@in_virtual_time
async def test_in_a_pause_requests_in_flight_end_and_other_claims_go_back() -> None:
    stage = Stage()
    stage.service.latency_seconds = 30.0
    await stage.put(*ids(100))
    async with running(stage.worker(drain=False, max_concurrency=4)):
        await asyncio.sleep(5.0)
        assert (await stage.queue.status()).in_flight == 100
        assert stage.service.count() == 4
        await pause(stage.queue, "ana@host", "deploy")
        await asyncio.sleep(HEARD_SECONDS)
        in_flight = stage.service.count()
        status = await stage.queue.status()
        assert (status.in_flight, status.pending) == (in_flight, 100)
        [event] = stage.events("queue.paused")
        assert (event["by"], event["reason"], event["in_flight"]) == ("ana@host", "deploy", in_flight)
        assert not stage.events("worker.quiet")
        await asyncio.sleep(40.0)
        status = await stage.queue.status()
        assert (status.in_flight, status.pending) == (0, 100 - in_flight)
        assert len(stage.events("worker.quiet")) == 1
        assert stage.service.count() == in_flight


@in_virtual_time
async def test_a_merge_that_has_read_does_not_write_before_the_pause_is_over() -> None:
    stage = Stage()
    stage.service.latency_seconds = 5.0
    await stage.put("chatcmpl-1", mode="merge", grade="A")
    async with running(stage.worker(drain=False)):
        await asyncio.sleep(1.0)
        assert stage.service.count("get") == 1
        await pause(stage.queue, "ana@host", None)
        await asyncio.sleep(60.0)
        assert stage.service.count("update") == 0
        assert (await stage.queue.status()).in_flight == 0
        await resume(stage.queue)
        await asyncio.sleep(60.0)
    assert stage.service.stored["chatcmpl-1"] == {"grade": "A"}


@in_virtual_time
async def test_in_a_pause_neither_a_retry_nor_a_probe_starts() -> None:
    stage = Stage()
    stage.service.trouble = lambda _: failed()
    await stage.put(*ids(30))
    async with running(stage.worker(drain=False, max_concurrency=4)):
        await asyncio.sleep(30.0)
        assert stage.events("worker.halted")
        for _ in range(10):
            await asyncio.sleep(7.3)
            await pause(stage.queue, "ana@host", None)
            paused_at = stage.now
            await asyncio.sleep(60.0)
            assert starts_after(stage, paused_at + HEARD_SECONDS) == 0
            await resume(stage.queue)
            requests = stage.service.count()
            await asyncio.sleep(60.0)
            assert stage.service.count() > requests
        stage.service.trouble = lambda _: None
        await asyncio.sleep(LONG_SECONDS)
        assert (await stage.queue.status()).pending == 0


@in_virtual_time
async def test_a_throttled_request_waits_for_the_end_of_a_pause() -> None:
    stage = Stage()

    def limited(request: Request) -> Verdict | Answer | None:
        return Verdict(Kind.THROTTLED, 429, delay_seconds=3.0) if int(request.at) % 2 else None

    stage.service.trouble = limited
    await stage.put(*ids(300))
    async with running(stage.worker(drain=False, max_concurrency=4)):
        for _ in range(10):
            await asyncio.sleep(4.1)
            await pause(stage.queue, "ana@host", None)
            paused_at = stage.now
            await asyncio.sleep(60.0)
            assert starts_after(stage, paused_at + HEARD_SECONDS) == 0
            await resume(stage.queue)
        stage.service.trouble = lambda _: None
        await asyncio.sleep(LONG_SECONDS)
        assert (await stage.queue.status()).pending == 0


@pytest.mark.parametrize("begun_before", [True, False])
def test_a_drain_ends_in_a_pause_and_names_who_paused_and_why(*, begun_before: bool) -> None:
    @in_virtual_time
    async def drained() -> None:
        stage = Stage()
        await stage.put(*ids(500))
        if not begun_before:
            await pause(stage.queue, "ana@host", "deploy")
            await asyncio.sleep(90.0)
        running = asyncio.create_task(stage.drain(max_concurrency=4))
        if begun_before:
            await asyncio.sleep(5.0)
            await pause(stage.queue, "ana@host", "deploy")
        async with asyncio.timeout(10.0):
            summary = await running
        assert (summary.ending, summary.empty) == (Ending.PAUSED, False)
        assert summary.paused is not None
        assert (summary.paused.by, summary.paused.reason) == ("ana@host", "deploy")
        assert (await stage.queue.status()).in_flight == 0
        assert bool(stage.service.count()) is begun_before
        assert stage.events("worker.stopping")[0]["why"] is Ending.PAUSED

    drained()


@in_virtual_time
async def test_a_run_whose_time_is_over_in_a_pause_says_so() -> None:
    stage = Stage()
    await stage.put(*ids(500))
    await pause(stage.queue, "ana@host", "deploy")
    started_at = stage.now
    summary = await stage.drain(drain=False, max_duration_seconds=900.0)
    assert (summary.ending, summary.empty) == (Ending.PAUSED, False)
    assert summary.paused is not None
    assert stage.now - started_at >= 899.0


@in_virtual_time
async def test_a_pause_holds_while_the_store_is_away() -> None:
    stage = Stage()
    queue = WrappedQueue(stage.queue)
    looks = {"read_note", "read_notes"}
    await stage.put(*ids(2_000))
    async with running(stage.worker(queue=queue, drain=False, max_concurrency=2)):
        await asyncio.sleep(5.0)
        queue.unavailable |= looks
        requests = stage.service.count()
        await asyncio.sleep(30.0)
        assert stage.service.count() > requests  # it was not paused
        queue.unavailable -= looks
        await pause(stage.queue, "ana@host", None)
        await asyncio.sleep(HEARD_SECONDS)
        queue.unavailable |= looks
        requests = stage.service.count()
        await asyncio.sleep(60.0)
        assert stage.service.count() == requests
        assert len([each for each in stage.events("store.unavailable") if each["operation"] == "pause"]) == 1
        queue.unavailable -= looks
        await resume(stage.queue)
        await asyncio.sleep(LONG_SECONDS)
        assert (await stage.queue.status()).pending == 0


@in_virtual_time
async def test_an_older_answer_that_comes_late_does_not_end_a_pause() -> None:
    stage = Stage()
    queue = _SlowNotes(stage.queue)
    await stage.put(*ids(2_000))
    async with running(stage.worker(queue=queue, drain=False, max_concurrency=2)):
        await asyncio.sleep(3.0)
        queue.slow = True  # notes read from here on arrive ten seconds later
        await asyncio.sleep(1.5)
        await pause(stage.queue, "ana@host", None)
        paused_at = stage.now
        await asyncio.sleep(60.0)
        assert starts_after(stage, paused_at + HEARD_SECONDS) == 0
        assert not stage.events("queue.resumed")


class _SlowNotes(WrappedQueue):
    """Returns all notes as they were a while ago."""

    slow = False

    async def read_notes(self) -> Any:
        notes = await super().read_notes()
        if self.slow:
            await asyncio.sleep(10.0)
        return notes


@in_virtual_time
async def test_a_new_reason_for_a_pause_is_logged_and_changes_nothing_else() -> None:
    stage = Stage()
    await pause(stage.queue, "ana@host", "deploy")
    worker = stage.worker(drain=False)
    async with running(worker):
        await asyncio.sleep(30.0)
        await pause(stage.queue, "ben@host", None)
        await asyncio.sleep(HEARD_SECONDS)
        standstill = worker.standstill()
        assert standstill is not None
        assert (standstill.by, standstill.reason) == ("ben@host", None)
        assert round(stage.clock.unix() - standstill.since) == 32
    assert [event["by"] for event in stage.events("queue.paused")] == ["ana@host", "ben@host"]
    assert [event["by"] for event in stage.events("worker.quiet")] == ["ana@host", "ben@host"]


@in_virtual_time
async def test_an_unreadable_pause_note_pauses_and_ends_no_worker() -> None:
    stage = Stage()
    await stage.put(*ids(10))
    for nonsense in ("", "{", "[[[[", '{"by":[]}', "\ud800"):
        await stage.queue.write_note(PAUSE, nonsense)
        summary = await stage.drain()
        assert summary.ending is Ending.PAUSED
        assert summary.paused is not None
        assert summary.paused.by == "somebody unknown"
    await resume(stage.queue)
    assert (await stage.drain()).ending is Ending.DRAINED


@in_virtual_time
async def test_in_a_pause_the_worker_notices_that_the_store_works_again() -> None:
    stage = Stage()
    queue = WrappedQueue(stage.queue)
    await stage.put(*ids(10))
    worker = stage.worker(queue=queue, drain=False)
    async with running(worker):
        queue.unavailable |= {"claim"}
        with suppress(QueueUnavailable):
            await asyncio.sleep(3.0)
        assert worker.tallies.store_error is not None
        await pause(stage.queue, "ana@host", None)
        await asyncio.sleep(30.0)
        assert worker.tallies.store_error is None
        queue.unavailable.clear()
