"""A service or a network that is away: one halt, few probes, and no attempt is spent."""

import asyncio
from typing import Any

import pytest

from tests.engine.blame import replies
from tests.engine.blame.house import House, PatientQueue, exit_of
from tests.engine.blame.replies import error, html, says, shows
from tests.engine.virtual import Request, Service, ids
from tests.virtual import in_virtual_time
from worker.changes import Mode
from worker.cli.exits import Exit
from worker.engine import Ending, Summary
from worker.queue import Claim, Place

# The first counted failure would kill a change.
STRICT: dict[str, Any] = {"max_attempts": 1, "give_up_after_seconds": 0.0}
HOUR = 3_600.0
AWAY = error(503, None)
FIRST_THIRD = frozenset(ids(300)[::3])


@pytest.mark.parametrize("mode", ["merge", "replace"])
@pytest.mark.parametrize("pending", [1, 2, 3, 4])
@in_virtual_time
async def test_a_port_that_is_closed_while_few_are_pending(pending: int, mode: Mode) -> None:
    house = House()
    await house.put(*ids(pending), mode=mode)
    house.service.trouble = says(lambda _: replies.REFUSED)
    summary = await house.drain(**STRICT)
    assert (summary.ending, exit_of(summary)) == (Ending.OUTAGE, Exit.RUN_AGAIN)
    assert [event["reason"] for event in house.events("worker.halted")] == ["outage"]
    assert (house.left(), await house.dead(), house.counted()) == (pending, [], 0)
    assert house.now == pytest.approx(61.0, abs=3.0)
    assert house.service.count() <= 3 * pending + 15


@pytest.mark.parametrize(("pending", "seconds"), [(5, HOUR / 2), (20, 3 * HOUR), (50, 5 * HOUR)])
@in_virtual_time
async def test_probes_spend_no_attempts(pending: int, seconds: float) -> None:
    house = House()
    await house.put(*ids(pending))
    house.service.trouble = says(lambda request: replies.RESET if request.at < seconds else None)
    async with house.daemon(**STRICT):
        await asyncio.sleep(seconds)
        assert (house.left(), await house.dead(), house.counted()) == (pending, [], 0)
        assert house.service.count() <= seconds / 10.0 + pending + 25
        assert await house.emptied(60.0) < 60.0
    assert not await house.dead()


@in_virtual_time
async def test_successful_reads_do_not_end_a_halt_by_updates() -> None:
    house = House()
    await house.put(*ids(30), mode="merge")
    house.service.trouble = says(lambda request: AWAY if request.operation == "update" and request.at < HOUR else None)
    async with house.daemon(**STRICT):
        await asyncio.sleep(HOUR)
        assert (house.left(), await house.dead(), house.counted()) == (30, [], 0)
        assert not house.events("worker.resumed")
        assert await house.emptied(60.0) < 60.0
    (halt,) = house.events("worker.halted")
    assert (halt["reason"], halt["operation"], halt["status"]) == ("outage", "update", 503)
    assert len(house.events("worker.resumed")) == 1
    assert not await house.dead()


@pytest.mark.parametrize("drain", [True, False], ids=["drain", "daemon"])
@pytest.mark.parametrize("is_met", [lambda _: True, FIRST_THIRD.__contains__], ids=["by all", "by a third"])
@pytest.mark.parametrize(
    "back",
    [replies.REFUSED, AWAY, html(502), replies.BAD_KEY, replies.FIREWALL, error(429, "insufficient_quota"), html(404),
     shows({}, "chatcmpl-another"), error(400, "weird"), replies.NOT_THERE, replies.BODY_DROPPED],
    ids=["refused", "503", "502", "401", "403", "quota", "404 HTML", "foreign", "rejected", "absent", "no body"],
)  # fmt: skip
@in_virtual_time
async def test_a_fault_of_ten_seconds_kills_nothing(back: replies.Back, is_met: object, *, drain: bool) -> None:
    assert callable(is_met)
    house = House()
    house.service.latency_seconds = 0.5  # so that there is something to do all the time
    await house.put(*ids(300))
    house.service.trouble = says(
        lambda request: back if 2.0 <= request.at < 12.0 and is_met(request.completion_id) else None
    )
    worker = house.worker(drain=drain)
    running = asyncio.create_task(worker.run())
    await house.emptied(400.0)
    assert (house.left(), await house.dead()) == (0, [])
    worker.stop()
    assert exit_of(await running, drain=drain) is Exit.DONE


@in_virtual_time
async def test_a_worker_without_network_counts_no_failure_beside_a_healthy_one() -> None:
    house = House(has_replicas=True)
    broken = Service(trouble=says(lambda _: replies.REFUSED))
    house.service.latency_seconds = 10.0  # so that the broken worker meets each completion again and again
    well = house.replica("well", drain=False, max_concurrency=1, batch_size=1)
    running = asyncio.create_task(well.run())
    await house.put(*ids(40))
    for _ in range(20):  # a cron job
        worker = house.replica("broken", broken, halt_timeout_seconds=5.0, max_attempts=1, give_up_after_seconds=0.0)
        summary = await worker.run()
        assert (summary.totals.dead, house.counted()) == (0, 0)
        await asyncio.sleep(10.0)
    assert len(house.service.stored) > 10
    assert len(broken.requests) > 100
    well.stop()
    await running
    assert not await house.dead()


async def _two_replicas(house: House, here: Service, *, there_fails: bool) -> list[asyncio.Task[Summary]]:
    """One worker is busy with slow requests; beside it another is halted by failures that only it meets."""
    here.latency_seconds = 30.0
    full = house.replica("here", here, drain=False, max_concurrency=1, batch_size=10)
    replicas = [asyncio.create_task(full.run())]
    await house.put(*ids(20))
    await asyncio.sleep(1.0)
    if there_fails:
        there = Service(trouble=says(lambda _: replies.BAD_KEY))
        replicas.append(asyncio.create_task(house.replica("there", there, drain=False).run()))
        await house.put("chatcmpl-there")
        await asyncio.sleep(1.0)
        assert [event["completion_id"] for event in house.events("worker.halted")] == ["chatcmpl-there"]
    return replicas


@pytest.mark.parametrize(("there_fails", "requests_before_a_halt"), [(True, 1), (False, 5)])
@in_virtual_time
async def test_after_another_workers_halt_the_first_failure_halts_here(
    requests_before_a_halt: int, *, there_fails: bool
) -> None:
    house, here = House(has_replicas=True), Service(trouble=says(lambda _: replies.BAD_KEY))
    replicas = await _two_replicas(house, here, there_fails=there_fails)
    while len(house.events("worker.halted")) < 1 + there_fails:
        await asyncio.sleep(0.1)
    ended = [request for request in here.requests if request.at + here.latency_seconds <= house.now]
    assert len(ended) == requests_before_a_halt
    assert (await house.dead(), house.counted()) == ([], 0)
    for replica in replicas:
        replica.cancel()


@in_virtual_time
async def test_a_success_here_outweighs_another_workers_halt() -> None:
    house, here, bad = House(has_replicas=True), Service(), ids(20)[5]
    here.trouble = says(lambda request: replies.BAD_KEY if request.completion_id == bad else None)
    replicas = await _two_replicas(house, here, there_fails=True)
    await asyncio.sleep(240.0)
    assert bad in {request.completion_id for request in here.requests}
    assert {event["completion_id"] for event in house.events("worker.halted")} == {"chatcmpl-there"}
    for replica in replicas:
        replica.cancel()


@in_virtual_time
async def test_a_drain_ends_at_once_if_the_service_asks_for_a_longer_wait() -> None:
    house = House()
    await house.put(*ids(50))
    house.service.trouble = says(lambda _: error(429, "rate_limit_exceeded", retry_after="600"))
    summary = await house.drain()
    assert (summary.ending, exit_of(summary), house.now < 5.0) == (Ending.CLOSED, Exit.RUN_AGAIN, True)
    assert summary.closed_for_seconds == pytest.approx(600.0, abs=5.0)
    assert (house.left(), house.counted()) == (50, 0)


@pytest.mark.parametrize(("hint", "waits"), [("4", 0), ("30", 1)])
@in_virtual_time
async def test_a_wait_of_more_than_five_seconds_is_logged_once(hint: str, waits: int) -> None:
    house = House()
    await house.put(*ids(50))
    house.service.trouble = says(
        lambda request: error(503, None, "warming up", retry_after=hint) if request.at < 1.0 else None
    )
    assert (await house.drain()).ending is Ending.DRAINED
    found: list[Request] = [request for request in house.service.requests if 1.0 <= request.at < float(hint)]
    assert not found
    events = house.events("worker.waiting")
    assert len(events) == waits
    for event in events:
        assert event["seconds"] == pytest.approx(30.0, abs=1.0)
        assert (event["error"], event["status"]) == ("HTTP 503 Service Unavailable: some_error: warming up", 503)


class _Counting(PatientQueue):
    """Counts the claims that are asked for."""

    claims = 0

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        owner: str,
        place: Place = "oldest",
        confirmed_seconds: float = 0.0,
    ) -> list[Claim]:
        self.claims += 1
        return await super().claim(
            limit, lease_seconds=lease_seconds, owner=owner, place=place, confirmed_seconds=confirmed_seconds
        )


@pytest.mark.parametrize("mode", ["merge", "replace"])
@in_virtual_time
async def test_during_a_halt_with_retry_after_nothing_is_claimed_repeatedly(mode: Mode) -> None:
    house = House()
    house.queue = queue = _Counting(clock=house.clock.unix)
    await house.put(*ids(50), mode=mode)
    house.service.trouble = says(lambda _: error(503, None, retry_after="30"))
    async with house.daemon():
        await asyncio.sleep(600.0)
    assert queue.claims < 600
