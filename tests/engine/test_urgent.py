"""Urgent completions start before the others, and starve none."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from tests.engine.virtual import Service, Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.api import Kind, Verdict
from worker.changes import MetadataChange
from worker.engine import Ending, Worker
from worker.queue import Claim, pause, resume

USUAL = 2_000  # more than a worker ever holds


async def _hurry(stage: Stage, *completion_ids: str, label: str = "urgent") -> None:
    await stage.queue.put([MetadataChange(each, {"label": label}, "replace") for each in completion_ids], urgent=True)


def _urgent(count: int) -> list[str]:
    return [f"urgent-{number:03d}" for number in range(count)]


def _starts(service: Service, completion_ids: Iterable[str]) -> list[float]:
    wanted = set(completion_ids)
    return [request.at for request in service.requests if request.completion_id in wanted]


async def _stop(worker: Worker, task: "asyncio.Task[Any]") -> None:
    worker.stop()
    await task


@in_virtual_time
@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 3, 50])
@pytest.mark.parametrize("urgent", [1, 3, 50])
async def test_urgent_changes_start_within_two_seconds_and_leave_half_of_the_slots(
    urgent: int, concurrency: int, *, drain: bool
) -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=drain, max_concurrency=concurrency)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(30.0 / concurrency)
    at, names = stage.now, _urgent(urgent)
    await _hurry(stage, *names)
    await asyncio.sleep(2.0 + 2.5 * 0.25 * urgent / concurrency)
    starts = _starts(stage.service, names)
    assert len(starts) == urgent
    assert starts[0] - at <= 0.5 + 0.4
    others = [each.at for each in stage.service.requests if each.at >= starts[0] and each.completion_id not in names]
    assert len([each for each in others if each <= starts[-1]]) >= urgent - concurrency
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("per_minute", [60.0, 500.0])
@pytest.mark.parametrize("urgent", [1, 3, 50])
async def test_at_a_rate_limit_urgent_changes_start_at_once_and_a_flood_takes_turns(
    urgent: int, per_minute: float
) -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=64, requests_per_minute=per_minute)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(30.0)
    at, names = stage.now, _urgent(urgent)
    await _hurry(stage, *names)
    await asyncio.sleep(2.0 * urgent * 60.0 / per_minute + 4.0)
    starts = _starts(stage.service, names)
    assert len(starts) == urgent
    assert starts[0] - at <= 0.5 + 2 * 60.0 / per_minute
    between = [each for each in stage.service.requests if starts[0] <= each.at <= starts[-1]]
    assert len(between) - urgent >= urgent - 2  # each of the others in turn
    await _stop(worker, task)


@in_virtual_time
async def test_a_slow_urgent_flood_has_half_of_the_slots_or_all_if_no_others_wait() -> None:
    stage = Stage()
    stage.service = slow = _Slow()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=8)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(10.0)
    await _hurry(stage, *_urgent(100))
    await asyncio.sleep(50.0)
    assert slow.most_urgent == 4
    await asyncio.sleep(600.0)
    assert slow.most_urgent == 8
    assert len(slow.stored) == USUAL + 100
    await _stop(worker, task)


class _Slow(Service):
    """Takes ten seconds for an urgent one, and a fifth for any other; counts how many urgent ones it has at once."""

    urgent = most_urgent = 0

    async def update(self, completion_id: str, *args: Any, **terms: Any) -> Any:
        if not completion_id.startswith("urgent"):
            return await super().update(completion_id, *args, **terms)
        self.urgent += 1
        self.most_urgent = max(self.most_urgent, self.urgent)
        await asyncio.sleep(10.0)
        self.urgent -= 1
        return await super().update(completion_id, *args, **terms)


@in_virtual_time
@pytest.mark.parametrize("pending", [1, 3, 50])
async def test_a_drain_of_only_urgent_changes_ends(pending: int) -> None:
    stage = Stage()
    await _hurry(stage, *_urgent(pending))
    summary = await stage.drain(max_concurrency=3)
    assert (summary.ending, summary.totals.applied, summary.empty) == (Ending.DRAINED, pending, True)


@in_virtual_time
@pytest.mark.parametrize("per_minute", [3.0, 6.0])
async def test_at_a_low_rate_the_next_request_is_an_urgent_one(per_minute: float) -> None:
    stage = Stage()
    await stage.put(*ids(50))
    worker = stage.worker(drain=False, max_concurrency=8, requests_per_minute=per_minute)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(120.0)
    before = stage.service.count()
    while stage.service.count() == before:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)  # its slot is free again, and the next is far off
    await _hurry(stage, *_urgent(1))
    await asyncio.sleep(60.0 / per_minute)
    assert [each.completion_id for each in stage.service.requests[before + 1 :]] == _urgent(1)
    await _stop(worker, task)


@in_virtual_time
async def test_earlier_pending_changes_join_the_urgent_update() -> None:
    stage = Stage()
    await stage.put(*ids(USUAL), mode="merge")
    await stage.queue.put([MetadataChange(ids(USUAL)[-1], {"label": "urgent"})], urgent=True)
    worker = stage.worker(drain=False)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(3.0)
    assert stage.service.stored[ids(USUAL)[-1]] == {"grade": "A", "label": "urgent"}
    assert [each.completion_id for each in stage.service.requests].count(ids(USUAL)[-1]) == 2  # a read, an update
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("per_minute", [60.0, 500.0])
async def test_a_held_completion_that_becomes_urgent_waits_for_the_claims_ahead(per_minute: float) -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=64, requests_per_minute=per_minute)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    for _ in range(10):  # the next one, and the one after it
        started = {each.completion_id for each in stage.service.requests}
        waiting = [each for each in ids(USUAL) if each not in started]
        at = stage.now
        nth = int(2 * per_minute / 60)
        await _hurry(stage, waiting[nth])
        await asyncio.sleep(4.0)
        assert _starts(stage.service, waiting[nth : nth + 1])[0] - at <= 3.0
    await _stop(worker, task)


@in_virtual_time
async def test_under_a_rate_limit_two_seconds_of_work_are_held() -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=64, requests_per_minute=500.0)
    task = asyncio.create_task(worker.run())
    held = []
    for _ in range(60):
        await asyncio.sleep(1.0)
        held.append((await stage.queue.status()).in_flight)
    assert max(held) <= 2 * 500 / 60 + 10  # and what is in flight, or waits to be recorded
    assert stage.service.count() >= 490
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("most_bytes", [False, True])
async def test_urgent_changes_are_claimed_beyond_the_usual_limit(
    monkeypatch: pytest.MonkeyPatch, *, most_bytes: bool
) -> None:
    if most_bytes:
        monkeypatch.setattr("worker.engine.worker._MOST_BYTES_HELD", 20_000)
    stage = Stage()
    stage.service.latency_seconds = 30.0
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=2, batch_size=64)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(100.0)
    await _hurry(stage, *_urgent(1))
    await asyncio.sleep(1.0)
    assert (await stage.queue.status()).in_flight > 32
    await asyncio.sleep(31.0)
    assert len(_starts(stage.service, _urgent(1))) == 1
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("pending", [1, 3, 50])
async def test_a_halt_ends_with_an_urgent_probe_if_there_is_no_other(pending: int) -> None:
    stage = Stage()
    down = True
    stage.service.trouble = lambda _: Verdict(Kind.RETRY, 503, error="HTTP 503") if down else None
    await _hurry(stage, *_urgent(pending))
    worker = stage.worker(drain=False)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    state = worker.flow_state()
    assert state is not None
    assert state.cause is not None
    down = False
    await asyncio.sleep(30.0)
    assert len(stage.service.stored) == pending
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("others", [50, 1_000])
@pytest.mark.parametrize("kind", ["usual", "urgent"])
async def test_while_all_of_one_kind_fails_a_probe_finds_one_of_the_other_kind(kind: str, others: int) -> None:
    stage = Stage()
    failing = _urgent(others) if kind == "urgent" else ids(others)
    stage.service.trouble = lambda request: (
        Verdict(Kind.RETRY, 503, error="HTTP 503") if request.completion_id in failing else None
    )
    await (_hurry(stage, *failing) if kind == "urgent" else stage.put(*failing))
    worker = stage.worker(drain=False)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    await (stage.put("healthy") if kind == "urgent" else _hurry(stage, "healthy"))
    before = stage.service.count()
    await asyncio.sleep(45.0)
    starts = [each.completion_id for each in stage.service.requests[before:]]
    assert "healthy" in starts[:5]  # of the probes, one for each place
    await _stop(worker, task)


@in_virtual_time
@pytest.mark.parametrize("pending", [1, 3, 50])
async def test_after_a_halt_urgent_changes_come_first_except_for_the_probe(pending: int) -> None:
    stage = Stage()
    down = True
    stage.service.trouble = lambda _: Verdict(Kind.RETRY, 503, error="HTTP 503") if down else None
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=8)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(60.0)
    await _hurry(stage, *_urgent(pending))
    down = False
    before = stage.service.count()
    while not _starts(stage.service, _urgent(pending)):
        await asyncio.sleep(0.1)
    reopened_at = stage.service.requests[before].at
    assert _starts(stage.service, _urgent(pending))[0] - reopened_at <= 1.5
    await _stop(worker, task)


@in_virtual_time
async def test_urgent_changes_wait_for_the_end_of_a_pause_and_then_come_first() -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    worker = stage.worker(drain=False, max_concurrency=3)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(10.0)
    await pause(stage.queue, "ana@host", "deploy")
    await asyncio.sleep(2.0)
    await _hurry(stage, *_urgent(3))
    await asyncio.sleep(60.0)
    assert _starts(stage.service, _urgent(3)) == []
    await resume(stage.queue)
    resumed_at = stage.now
    await asyncio.sleep(4.0)
    starts = _starts(stage.service, _urgent(3))
    assert len(starts) == 3
    assert starts[-1] - resumed_at <= 3.0
    await pause(stage.queue, "ana@host", "deploy")  # while urgent ones are held
    await _hurry(stage, *_urgent(50))
    await asyncio.sleep(60.0)
    assert (await stage.queue.status()).in_flight == 0
    await _stop(worker, task)


@in_virtual_time
async def test_each_of_several_workers_leaves_half_to_the_others() -> None:
    stage = Stage()
    await stage.put(*ids(USUAL))
    await _hurry(stage, *_urgent(600))
    workers = [stage.worker(drain=False, max_concurrency=2) for _ in range(3)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    await asyncio.sleep(20.0)
    urgent = _starts(stage.service, _urgent(600))
    assert 0.4 * stage.service.count() <= len(urgent) <= 0.6 * stage.service.count()
    for worker, task in zip(workers, tasks, strict=True):
        await _stop(worker, task)


class _Asked(WrappedQueue):
    """Counts the claims, by where they look."""

    def __init__(self, queue: Any) -> None:
        super().__init__(queue)
        self.asked: list[str] = []

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        self.asked.append(terms.get("place", "oldest"))
        return await super().claim(limit, **terms)


@in_virtual_time
async def test_without_urgent_changes_the_reader_looks_for_them_twice_a_second() -> None:
    stage = Stage()
    await stage.put(*ids(10_000))
    queue: Any = _Asked(stage.queue)
    worker = stage.worker(queue=queue, drain=False, max_concurrency=50)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(20.0)
    assert 30 <= queue.asked.count("urgent") <= 41
    await _stop(worker, task)
