"""What is not a change's fault stops the work and keeps the queue."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.engine.conftest import Bench
from worker.api import Client
from worker.engine import Ending
from worker.simulator import RateLimit, Switches

ID = "chatcmpl-1"


def _bad_key(switches: Switches) -> None:
    switches.bad_key = True


def _forbidden(switches: Switches) -> None:
    switches.forbidden = True


def _missing_scope(switches: Switches) -> None:
    switches.missing_scope = True


def _quota(switches: Switches) -> None:
    switches.quota_exhausted = True


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(_bad_key, "unauthorized"), (_missing_scope, "unauthorized"), (_forbidden, "forbidden"), (_quota, "quota")],
)
async def test_work_stops_and_everything_stays_pending(
    bench: Bench, trouble: Callable[[Switches], None], reason: str
) -> None:
    ids = [f"chatcmpl-{number}" for number in range(50)]
    bench.simulator.seed_completions(ids)
    trouble(bench.simulator.switches)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    summary = await bench.drain(max_concurrency=4)
    assert (summary.ending, summary.reason) == (Ending.HALTED, reason)
    status = await bench.queue.status()
    assert (status.pending, status.in_flight, status.waiting, status.dead) == (50, 0, 0, 0)
    assert summary.requests <= 4  # those that were in flight together
    assert [event["reason"] for event in bench.events("worker.halted")] == [reason]
    claims = await bench.queue.claim(50, lease_seconds=1, owner="test")
    assert {claim.attempts for claim in claims} == {0}


async def test_a_wrong_url_halts_and_buries_nothing(bench: Bench) -> None:
    await bench.put(ID, {"grade": "A"})
    async with Client(base_url=bench.simulator.base_url + "/oops", api_key="sk-test") as client:
        bench.client = client
        summary = await bench.drain()
    assert (summary.ending, summary.reason) == (Ending.HALTED, "wrong_url")
    assert (await bench.queue.status()).pending == 1


async def test_a_service_that_is_away_is_an_outage(bench: Bench) -> None:
    ids = [f"chatcmpl-{number}" for number in range(20)]
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    await bench.simulator.stop()
    summary = await bench.drain()
    assert summary.ending is Ending.OUTAGE
    assert (await bench.queue.status()).pending == 20
    assert not await bench.dead()


async def test_work_goes_on_by_itself_with_the_key_that_replaced_the_bad_one(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, api_key="sk-new")
    bench.simulator.seed(ID)
    await bench.put(ID, {"grade": "A"}, mode="replace")
    worker = bench.worker(halt_timeout_seconds=60)
    probes = 0

    async def read_key() -> None:
        nonlocal probes
        probes += 1
        bench.client.use_key("sk-new")

    worker._before_probe = read_key
    summary = await asyncio.wait_for(worker.run(), 30)
    assert (summary.ending, summary.totals.applied, probes) == (Ending.DRAINED, 1, 1)
    assert len(bench.events("worker.halted")) == len(bench.events("worker.resumed")) == 1


async def test_no_request_starts_while_a_retry_after_runs(bench: Bench) -> None:
    limit = RateLimit(requests_per_minute=3_000, hint="ms")
    bench.simulator.options = replace(bench.simulator.options, limit=limit, closed_grace_seconds=0.02)
    ids = [f"chatcmpl-{number}" for number in range(200)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    summary = await bench.drain()
    assert summary.totals.applied == 200
    assert summary.throttled == bench.simulator.counters.throttled > 0
    assert bench.simulator.counters.started_while_closed == 0
    assert summary.totals.retries == 0  # being throttled is not a failure
    assert 0 < float((await bench.queue.read_notes())["limit"].text) < 100  # for the next run to start with
    assert not bench.events("change.retry_scheduled")
