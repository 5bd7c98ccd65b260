"""What flow control is told: by other workers, by the store, by a person, and by the engine; in virtual time."""

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.virtual import in_virtual_time
from worker.flow import (
    FAULT,
    OUTAGE,
    SUCCEEDED,
    Closed,
    End,
    Ended,
    Flow,
    GateEvent,
    GateState,
    Paused,
    Permit,
)

QUOTA = Ended(End.FAILED, reason="quota")
FIVE = [f"c{number}" for number in range(5)]


def _flow(
    *,
    start: float | None = 100.0,
    requests_per_minute: float | None = None,
    on_short: Callable[[], None] | None = None,
    events: list[GateEvent] | None = None,
) -> Flow:
    flow = Flow(
        max_concurrency=8,
        requests_per_minute=requests_per_minute,
        patience_seconds=5.0,
        on_short=on_short,
        clock=asyncio.get_running_loop().time,
        random=random.Random(1),
        on_transition=(events if events is not None else []).append,
    )
    flow.begin_at(start)
    return flow


async def _busy(flow: Flow, until: float) -> None:
    """Requests that get through, as fast as they may start."""
    while asyncio.get_running_loop().time() < until:
        permit = await flow.admit("busy", "update")
        await asyncio.sleep(0.001)
        permit.end(SUCCEEDED)


async def _settle() -> None:
    """Let all tasks run that can, without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def _admit(flow: Flow, completion_id: str = "c") -> asyncio.Task[Permit]:
    return asyncio.create_task(flow.admit(completion_id, "update"))


async def _halt(flow: Flow) -> None:
    """Halt, by five completions that are refused in a row, and a probe that is refused, too."""
    for completion_id in FIVE:
        (await flow.admit(completion_id, "update")).end(QUOTA)
    assert flow.take_probe("p")
    (await flow.admit("p", "update", probe=True)).end(QUOTA)
    flow.probe_ended()


@in_virtual_time
async def test_a_refusal_at_another_worker_makes_this_one_wait_as_long_and_aim_lower() -> None:
    loop, flow = asyncio.get_running_loop(), _flow()
    await _busy(flow, 10.0)
    before, at = flow.snapshot(), loop.time()
    flow.others_refused(2.0)
    after = flow.snapshot()
    assert 2.05 <= after.closed_for_seconds <= 2.25
    assert (after.rate_limit_per_second or 0.0) < 0.99 * (before.rate_limit_per_second or 0.0)
    await flow.admit("c", "update")
    assert 2.05 <= loop.time() - at <= 2.26


@in_virtual_time
async def test_a_service_in_trouble_at_another_worker_makes_this_one_wait_as_long_at_the_same_limit() -> None:
    loop, flow = asyncio.get_running_loop(), _flow()
    await _busy(flow, 10.0)
    before, at = flow.snapshot(), loop.time()
    flow.others_paused(2.0)
    after = flow.snapshot()
    assert 2.05 <= after.closed_for_seconds <= 2.25
    assert after.rate_limit_per_second == before.rate_limit_per_second
    await flow.admit("c", "update")
    assert 2.05 <= loop.time() - at <= 2.26


@pytest.mark.parametrize("told", [Flow.others_refused, Flow.others_paused])
@in_virtual_time
async def test_a_long_delay_at_another_worker_sends_requests_in_line_back_at_once(
    told: Callable[[Flow, float], None],
) -> None:
    loop, flow = asyncio.get_running_loop(), _flow(start=None, requests_per_minute=6.0)
    await flow.admit("c", "update")
    waiting, at = _admit(flow), loop.time()
    await _settle()
    told(flow, 30.0)
    with pytest.raises(Closed):
        await waiting
    assert loop.time() == at


@in_virtual_time
async def test_a_halt_at_another_worker_halts_this_one_at_the_next_failure_for_that_reason() -> None:
    flow = _flow()
    await asyncio.sleep(10.0)
    flow.others_halted("quota", 5.0)
    (await flow.admit("c", "update")).end(Ended(End.FAILED, reason=OUTAGE))
    assert flow.gate.is_open
    (await flow.admit("d", "update")).end(QUOTA)
    assert flow.snapshot().halt_reason == "quota"


@in_virtual_time
async def test_a_halt_at_another_worker_that_is_older_than_this_run_halts_nothing() -> None:
    flow = _flow()
    await asyncio.sleep(4.0)
    flow.others_halted("quota", 5.0)
    (await flow.admit("c", "update")).end(QUOTA)
    assert flow.gate.is_open


@pytest.mark.parametrize(("age_seconds", "at"), [(4.0, 6.0), (0.5, 9.5), (-1.0, 10.0)])
@in_virtual_time
async def test_a_success_at_another_worker_counts_from_when_it_was_there(age_seconds: float, at: float) -> None:
    flow = _flow()
    await asyncio.sleep(10.0)
    flow.others_succeeded("get", age_seconds)
    assert flow.gate.others_got_through("get", "c", at - 0.01, elsewhere=True)
    assert not flow.gate.others_got_through("get", "c", at, elsewhere=True)  # -1: clocks that differ tell no future
    assert not flow.gate.others_got_through("update", "c", 0.0, elsewhere=True)


@in_virtual_time
async def test_when_another_worker_goes_on_a_probe_is_due_here_at_once() -> None:
    loop, flow = asyncio.get_running_loop(), _flow()
    await _halt(flow)
    claiming, at = asyncio.create_task(flow.ready()), loop.time()
    await asyncio.sleep(1.0)
    flow.others_resumed()
    assert await claiming == 1
    assert loop.time() - at == pytest.approx(1.0)


@in_virtual_time
async def test_with_a_new_key_a_probe_is_due_at_once() -> None:
    loop, flow = asyncio.get_running_loop(), _flow()
    await _halt(flow)
    claiming, at = asyncio.create_task(flow.ready()), loop.time()
    await asyncio.sleep(1.0)
    flow.new_key()
    assert await claiming == 1
    assert loop.time() - at == pytest.approx(1.0)


@in_virtual_time
async def test_requests_start_at_the_times_that_the_shared_quota_grants() -> None:
    loop, short = asyncio.get_running_loop(), list[float]()
    flow = _flow(start=None, requests_per_minute=120.0, on_short=lambda: short.append(loop.time()))
    await asyncio.sleep(1.0)
    waiting = [_admit(flow) for _ in range(3)]
    await asyncio.sleep(1.0)
    assert short[0] == 1.0  # asked for at once
    flow.grant(3, wait_seconds=1.0, interval_seconds=0.5)
    for task, at in zip(waiting, (3.0, 3.5, 4.0), strict=True):
        (await task).end(SUCCEEDED)
        assert loop.time() == pytest.approx(at, abs=0.01)


@in_virtual_time
async def test_a_grant_to_a_flow_that_shares_no_quota_changes_nothing() -> None:
    flow = _flow(start=None, requests_per_minute=60.0)
    flow.grant(10, wait_seconds=0.0, interval_seconds=0.0)
    assert flow.start("c", "update")
    assert not flow.start("d", "update")  # a second is not over


@in_virtual_time
async def test_a_pause_sends_requests_in_line_back_and_lets_nothing_start_until_its_end() -> None:
    flow = _flow(start=None, requests_per_minute=6.0)
    (await flow.admit("c", "update")).end(SUCCEEDED)
    waiting = _admit(flow)
    await _settle()
    flow.pause(paused=True)
    with pytest.raises(Paused):
        await waiting
    with pytest.raises(Paused):
        await flow.admit("d", "update")
    claiming = asyncio.create_task(flow.ready())
    await asyncio.sleep(60.0)
    assert flow.start("d", "update") is None
    assert not claiming.done()
    flow.pause(paused=False)
    assert await claiming is None
    assert flow.start("d", "update")


@in_virtual_time
async def test_in_a_pause_no_probe_starts() -> None:
    flow = _flow()
    await _halt(flow)
    await asyncio.sleep(6.0)
    assert flow.take_probe("q")
    flow.pause(paused=True)
    assert flow.start_probe("q", "update") is None
    flow.pause(paused=False)
    assert flow.start_probe("q", "update")


@in_virtual_time
async def test_failures_of_all_that_is_left_halt() -> None:
    events: list[GateEvent] = []
    flow = _flow(events=events)
    await asyncio.sleep(1.0)
    (await flow.admit("a", "update")).end(QUOTA)
    flow.nothing_else(["a", "b"])
    assert not events
    flow.nothing_else(["a"])
    [event] = events
    assert (event.kind, event.reason) == ("halted", "quota")
    assert flow.snapshot().halted_for_seconds == 0.0


@in_virtual_time
async def test_in_a_halt_by_few_a_completion_that_has_not_failed_is_claimed_and_tried_at_once() -> None:
    flow = _flow()
    (await flow.admit("a", "update")).end(QUOTA)
    flow.nothing_else(["a"])
    assert flow.take_probe("p")
    (await flow.admit("p", "update", probe=True)).end(QUOTA)
    at = asyncio.get_running_loop().time()
    assert await flow.ready() == 1
    assert not flow.take_probe("a")
    assert flow.take_probe("newcomer")
    assert asyncio.get_running_loop().time() == at


@in_virtual_time
async def test_while_changes_wait_for_the_end_of_a_delay_they_are_not_taken_for_gone() -> None:
    flow = _flow()
    (await flow.admit("a", "update")).end(QUOTA)
    (await flow.admit("b", "update")).end(Ended(End.THROTTLED, delay_seconds=2.0))
    until = asyncio.get_running_loop().time() + flow.snapshot().closed_for_seconds
    await asyncio.sleep(until + 2.99 - asyncio.get_running_loop().time())
    flow.nothing_else(["a"])
    assert flow.gate.is_open
    await asyncio.sleep(0.02)
    flow.nothing_else(["a"])
    assert not flow.gate.is_open


@in_virtual_time
async def test_bugs_of_ours_halt_and_a_bug_in_the_probe_keeps_the_halt() -> None:
    events: list[GateEvent] = []
    flow, word = _flow(events=events), Ended(End.FAILED, reason=FAULT, error="internal error: KeyError")
    await asyncio.sleep(1.0)
    for completion_id in FIVE:
        assert flow.gate.is_open
        flow.fault(completion_id, word)
    cause = flow.snapshot().cause
    assert cause is not None
    assert (cause.reason, cause.error, cause.completion_id) == (FAULT, "internal error: KeyError", "c4")
    assert [event.kind for event in events] == ["halted"]
    assert flow.snapshot().halted_for_seconds == 0.0
    assert flow.take_probe("p")
    flow.fault("q", word)  # it was begun before the halt
    assert flow.snapshot().gate is GateState.HALF_OPEN
    flow.fault("p", word, probe=True)
    state = flow.snapshot()
    assert (state.gate, state.next_probe_in_seconds) == (GateState.HALTED, 5.0)
    assert flow.gate.has_failed("p")


@in_virtual_time
async def test_what_twenty_completions_in_a_row_met_is_told_with_its_time() -> None:
    flow = _flow(start=None)
    await asyncio.sleep(1.0)
    for number in range(20):
        assert flow.alike() is None
        (await flow.admit(f"c{number}", "update")).end(Ended(End.ABSENT))
    await asyncio.sleep(3.0)
    alike = flow.alike()
    assert alike is not None
    assert alike[0].reason == "absent"
    assert 3.0 <= alike[1] < 3.5
    assert flow.snapshot().slowed_by == alike[0]


@in_virtual_time
async def test_the_half_that_urgent_requests_may_use_is_free_again_when_one_is_given_back() -> None:
    flow = Flow(max_concurrency=2, patience_seconds=5.0, clock=asyncio.get_running_loop().time)
    flow.begin_at(1000.0)
    await _busy(flow, 1.0)
    first, second = [await flow.admit(completion_id, "update") for completion_id in "ab"]
    urgent = [asyncio.create_task(flow.admit("u", "update", urgent=True)) for _ in range(2)]
    usual = [_admit(flow) for _ in range(2)]
    await asyncio.sleep(1.0)  # the pacer holds none of them back
    first.end(SUCCEEDED)  # it is the turn of the first urgent one, but its task has not run yet
    urgent[0].cancel()
    await _settle()
    assert [task.done() for task in usual] == [True, False]  # they take turns
    second.end(SUCCEEDED)
    await _settle()
    assert (urgent[1].done(), usual[1].done()) == (True, False)
