"""Trouble that is no change's fault stops the work and keeps the queue."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.conftest import Bench
from worker.api import Answer, Client
from worker.engine import Ending
from worker.engine.trials import Trials, trials_of
from worker.queue import Claim
from worker.queue.notes import limit_in
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
    summary = await bench.drain(max_concurrency=4, halt_timeout_seconds=0.3)
    assert (summary.ending, summary.reason) == (Ending.HALTED, reason)
    assert summary.cause is not None
    assert summary.cause.status in {401, 403, 429}
    assert summary.cause.error
    status = await bench.queue.status()
    assert (status.pending, status.in_flight, status.dead) == (50, 0, 0)
    assert status.waiting <= summary.requests  # changes that were not tried do not wait
    assert summary.requests <= 5 + 3 + 1  # five in a row, the requests in flight with the fifth, and the first probe
    assert [event["reason"] for event in bench.events("worker.halted")] == [reason]
    assert {trials.counted for trials in await _trials(bench)} == {0}


async def _trials(bench: Bench) -> list[Trials]:
    """The errors of all changes that are pending and due soon."""
    async with asyncio.timeout(30):
        claims = list[Claim]()
        while len(claims) < 50:
            claims += await bench.queue.claim(50, lease_seconds=60, owner="test")
            await asyncio.sleep(0.01)
    return [trials_of(change) for claim in claims for change in claim.changes]


async def test_a_wrong_url_halts_and_kills_nothing(bench: Bench) -> None:
    await bench.put(ID, {"grade": "A"})
    async with Client(base_url=bench.simulator.base_url + "/oops", api_key="sk-test") as client:
        bench.client = client
        summary = await bench.drain(halt_timeout_seconds=0.3)
    assert (summary.ending, summary.reason) == (Ending.HALTED, "wrong_url")
    assert (await bench.queue.status()).pending == 1


async def test_a_service_that_is_away_is_an_outage(bench: Bench) -> None:
    ids = [f"chatcmpl-{number}" for number in range(20)]
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    await bench.simulator.stop()
    summary = await bench.drain(halt_timeout_seconds=0.3)
    assert summary.ending is Ending.OUTAGE
    assert (await bench.queue.status()).pending == 20
    assert not await bench.dead()


@pytest.mark.parametrize("count", [1, 20], ids=["all there are", "five in a row"])
async def test_work_goes_on_by_itself_with_the_key_that_replaced_the_bad_one(bench: Bench, count: int) -> None:
    bench.simulator.options = replace(bench.simulator.options, api_key="sk-new")
    ids = [f"chatcmpl-{number}" for number in range(count)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    asked: list[bool] = []

    async def read_key(always: bool) -> bool:  # noqa: FBT001 -- as the engine calls it
        asked.append(always)
        if always:  # it was replaced after the halt, unnoticed so far
            bench.client.use_key("sk-new")
        return always

    worker = bench.worker(halt_timeout_seconds=60, read_key=read_key)
    summary = await asyncio.wait_for(worker.run(), 30)
    assert (summary.ending, summary.totals.applied) == (Ending.DRAINED, count)
    assert asked.count(True) == 1  # before the one probe that there was
    assert len(bench.events("worker.halted")) == len(bench.events("worker.resumed")) == 1


async def test_a_key_that_was_renewed_in_time_halts_nothing(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, latency=0.05)
    ids = [f"chatcmpl-{number}" for number in range(40)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    renewed = False

    async def read_key(always: bool) -> bool:  # noqa: ARG001, FBT001 -- as the engine calls it
        nonlocal renewed
        if renewed or bench.simulator.counters.updates_applied < 10:
            return False
        renewed = True
        bench.simulator.options = replace(bench.simulator.options, api_key="sk-new")
        bench.client.use_key("sk-new")
        return True

    summary = await bench.worker(read_key=read_key, max_concurrency=1).run()
    assert (summary.ending, summary.totals.applied, renewed) == (Ending.DRAINED, 40, True)
    assert not bench.events("worker.halted")


class Watched(Client):
    """Counts the requests that start before a delay has passed that an answer asked for.

    The service cannot count them: a request that is on its way when it refuses another comes later without a fault.
    """

    started_early = 0
    closed_until = 0.0

    async def update(self, *whose: Any, **terms: Any) -> Answer:
        now = asyncio.get_running_loop().time
        self.started_early += now() < self.closed_until
        answer = await super().update(*whose, **terms)
        if (delay := answer.verdict.delay_seconds) is not None:
            self.closed_until = max(self.closed_until, now() + delay)
        return answer


async def test_no_request_starts_while_a_retry_after_runs(bench: Bench) -> None:
    limit = RateLimit(requests_per_minute=3_000, hint="seconds")  # of a second at least
    bench.simulator.options = replace(bench.simulator.options, limit=limit)
    ids = [f"chatcmpl-{number}" for number in range(200)]
    bench.simulator.seed_completions(ids)
    for completion_id in ids:
        await bench.put(completion_id, {"grade": "A"}, mode="replace")
    async with Watched(base_url=bench.simulator.base_url, api_key="sk-test") as client:
        bench.client = client
        summary = await bench.drain()
    assert summary.totals.applied == 200
    assert summary.throttled == bench.simulator.counters.throttled > 0
    assert client.closed_until > 0
    assert client.started_early == 0
    assert summary.totals.retries == 0  # being throttled is not a failure
    limit_found = limit_in(await bench.queue.read_notes())
    assert limit_found is not None
    assert 0 < limit_found.per_second < 100  # for the next run to start with
    assert not bench.events("change.retry_scheduled")
