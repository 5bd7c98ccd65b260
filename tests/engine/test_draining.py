"""When a drain ends although changes are left, and the reason that it gives."""

import asyncio
from typing import Any

import pytest

from tests.engine.parts import end, flow, halt, leases_on, now, others_get_through, queue_with, running
from tests.engine.virtual import Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.api import Kind, Verdict
from worker.engine.draining import DrainWatch
from worker.engine.options import Ending
from worker.engine.outcome import Deferral, Outcome
from worker.flow import ABSENT, FAILED, Cause, End, Ended
from worker.queue import Claim, PendingSelection, QueueStatus, Settlement, Store

UNAUTHORIZED = Ended(End.FAILED, "unauthorized")


class _Status(WrappedQueue):
    """A store whose status can be away."""

    async def status(self) -> QueueStatus:
        self._check("status")
        return await super().status()


class Desk:
    """A drain that waits a minute while nothing gets through."""

    def __init__(self, queue: Store) -> None:
        self.queue, self.flow = _Status(queue), flow()
        self.leases, self.tallies, _ = leases_on(self.queue, lease_seconds=3_600.0)
        self.ended: list[tuple[float, Ending, Cause | None]] = []
        self.watch = DrainWatch(
            self.queue, self.flow, self.leases, self.tallies, now, timeout_seconds=60.0, stop=self._stop
        )

    def _stop(self, ending: Ending, cause: Cause | None) -> None:
        self.ended.append((now(), ending, cause))

    async def claim(self) -> Claim:
        (claim,) = await self.queue.claim(1, lease_seconds=3_600.0, owner="test")
        self.leases.take([claim], now())
        return claim

    async def fails(self, claim: Claim, *, delay_seconds: float = 3_000.0, **said: Any) -> None:
        """Its changes stay pending after a failure, and are due after so long."""
        await self.queue.settle([Settlement(claim, delay_seconds=delay_seconds)])
        self.leases.drop([claim])
        given: dict[str, Any] = {"error": "refused", "delay_seconds": delay_seconds}
        self.watch.saw(Outcome(claim, deferred=claim.changes, deferral=Deferral.RETRY, **given | said))


async def desk_with(count: int) -> Desk:
    return Desk(await queue_with(f"chatcmpl-{number}" for number in range(count)))


def _about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1.1)


@in_virtual_time
@pytest.mark.parametrize(("word", "ending"), [(FAILED, Ending.OUTAGE), (UNAUTHORIZED, Ending.HALTED)])
async def test_a_halt_is_waited_for_and_then_ends_the_drain_with_its_cause(word: Ended, ending: Ending) -> None:
    desk = await desk_with(1)
    with running(desk.watch.run()):
        await asyncio.sleep(100.0)
        cause = halt(desk.flow, word.reason)
        await asyncio.sleep(300.0)
    assert desk.ended == [(_about(160.0), ending, cause)]


@in_virtual_time
async def test_a_halt_that_ends_in_time_does_not_end_a_drain() -> None:
    desk = await desk_with(1)
    with running(desk.watch.run()):
        for _ in range(10):
            halt(desk.flow, "unauthorized")
            await asyncio.sleep(50.0)
            assert desk.flow.take_probe("p")
            (await desk.flow.admit("p", "update", probe=True)).end(Ended(End.SUCCEEDED))
            await asyncio.sleep(50.0)
    assert desk.ended == []


@in_virtual_time
async def test_a_halt_by_few_while_others_got_through_is_a_stuck_drain() -> None:
    desk = await desk_with(1)
    others_get_through(desk.flow)
    end(desk.flow, UNAUTHORIZED, completion_id="a")
    desk.flow.nothing_else(["a"])
    with running(desk.watch.run()):
        await asyncio.sleep(300.0)
    ((at, ending, cause),) = desk.ended
    assert (at, ending) == (_about(60.0), Ending.STUCK)
    assert cause is not None
    assert cause.completion_id == "a"


@in_virtual_time
async def test_a_refusal_that_all_meet_ends_the_drain_when_it_has_lasted() -> None:
    desk = await desk_with(1)
    for number in range(20):
        end(desk.flow, Ended(End.ABSENT, error="No such completion", status=404), completion_id=f"c{number}")
    with running(desk.watch.run()):
        await asyncio.sleep(300.0)
    assert desk.ended == [(_about(60.0), Ending.HALTED, Cause(ABSENT, "No such completion", 404))]


@in_virtual_time
@pytest.mark.parametrize(("delay_seconds", "ends"), [(30.0, False), (300.0, True)])
async def test_a_service_that_asks_to_wait_for_longer_than_a_drain_does_ends_it(
    delay_seconds: float,
    ends: bool,  # noqa: FBT001 -- what is expected
) -> None:
    desk = await desk_with(1)
    end(desk.flow, Ended(End.THROTTLED, delay_seconds=delay_seconds))
    with running(desk.watch.run()):
        await asyncio.sleep(400.0)
    assert desk.ended == [(_about(1.0), Ending.CLOSED, None)] * ends


@in_virtual_time
async def test_a_drain_is_stuck_when_all_that_is_left_has_failed_and_nothing_gets_through() -> None:
    desk = await desk_with(2)
    first, second = await desk.claim(), await desk.claim()
    with running(desk.watch.run()):
        await asyncio.sleep(100.0)
        await desk.fails(first, error="refused alone")
        await asyncio.sleep(100.0)
        assert desk.ended == []  # this worker holds the other one
        await desk.queue.settle([Settlement(second, [change.number for change in second.changes])])
        desk.leases.drop([second])
        desk.watch.saw(Outcome(second, applied=second.changes))
        await asyncio.sleep(55.0)
        assert desk.ended == []
        await asyncio.sleep(10.0)
    assert desk.ended == [(_about(260.0), Ending.STUCK, None)]
    assert desk.watch.failing == {"chatcmpl-0": "refused alone"}


@in_virtual_time
async def test_a_drain_with_something_that_has_not_been_tried_is_not_stuck() -> None:
    desk = await desk_with(2)
    await desk.fails(await desk.claim())
    with running(desk.watch.run()):
        await asyncio.sleep(300.0)
    assert desk.ended == []


@in_virtual_time
async def test_a_drain_with_what_another_worker_holds_is_not_stuck() -> None:
    desk = await desk_with(2)
    await desk.fails(await desk.claim())
    await desk.queue.claim(1, lease_seconds=3_600.0, owner="another")
    with running(desk.watch.run()):
        await asyncio.sleep(300.0)
    assert desk.ended == []


@in_virtual_time
async def test_a_completion_that_may_yet_be_found_keeps_a_drain_going() -> None:
    desk = await desk_with(2)
    await desk.fails(await desk.claim(), absent_seconds=250.0)
    await desk.fails(await desk.claim())
    assert desk.watch.absent() == (1, 250.0)
    with running(desk.watch.run()):
        await asyncio.sleep(300.0)
    assert desk.ended == []


@in_virtual_time
async def test_a_due_second_try_keeps_a_drain_going() -> None:
    desk = await desk_with(1)
    await desk.fails(await desk.claim(), delay_seconds=120.0, second_look=True)
    with running(desk.watch.run()):
        await asyncio.sleep(119.0)
        assert desk.ended == []


@in_virtual_time
async def test_a_completion_that_succeeds_is_no_longer_failing() -> None:
    desk = await desk_with(1)
    claim = await desk.claim()
    await desk.fails(claim, delay_seconds=1.0)
    assert list(desk.watch.failing) == [claim.completion_id]
    desk.watch.saw(Outcome(claim, applied=claim.changes))
    assert desk.watch.failing == {}


@in_virtual_time
async def test_a_drain_waits_while_the_store_does_not_answer() -> None:
    desk = await desk_with(1)
    await desk.fails(await desk.claim())
    desk.queue.unavailable.add("status")
    with running(desk.watch.run()):
        await asyncio.sleep(100.0)
        assert desk.queue.refused
        assert desk.ended == []
        desk.queue.unavailable.clear()
        await asyncio.sleep(5.0)
    assert [ending for _, ending, _ in desk.ended] == [Ending.STUCK]


@in_virtual_time
async def test_changes_withdrawn_during_the_drain_are_not_left() -> None:
    stage = Stage()
    failing = {"withdrawn", "stays"}
    stage.service.trouble = lambda request: (
        Verdict(Kind.RETRY, 503, error="HTTP 503") if request.completion_id in failing else None
    )
    await stage.put(*failing, *ids(50))
    task = asyncio.create_task(stage.drain(halt_timeout_seconds=60.0))
    await asyncio.sleep(20.0)
    while not (await stage.queue.withdraw(PendingSelection(completion_id="withdrawn"))).withdrawn:
        await asyncio.sleep(0.1)
    summary = await task
    assert (summary.ending, list(summary.left)) == (Ending.STUCK, ["stays"])
