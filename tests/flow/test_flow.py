"""The face of flow control, in virtual time: slots, order, closing, halting, probes."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.flow.virtual import in_virtual_time
from worker.flow import OUTAGE, Closed, Flow, GateEvent, GateState, Halted, Permit


def _flow(
    *,
    max_concurrency: int = 64,
    start: float | None = 1000.0,
    requests_per_minute: float | None = None,
    events: list[GateEvent] | None = None,
) -> Flow:
    return Flow(
        max_concurrency=max_concurrency,
        start_rate_per_second=start,
        requests_per_minute=requests_per_minute,
        clock=asyncio.get_running_loop().time,
        random=random.Random(1),
        on_transition=(events if events is not None else []).append,
    )


async def _warm(flow: Flow, *, answers: int = 200) -> None:
    """Past the slow start."""

    async def apply() -> None:
        for _ in range(answers // 8):
            permit = await flow.admit("warm")
            await asyncio.sleep(0.05)
            permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(apply())


async def _settle() -> None:
    """Let every task run that can, without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def _admit(flow: Flow, completion_id: str = "c", patience_seconds: float = 5.0) -> asyncio.Task[Permit]:
    return asyncio.create_task(flow.admit(completion_id, patience_seconds=patience_seconds))


@in_virtual_time
async def test_a_request_may_start_at_once_when_nothing_holds_it_back() -> None:
    flow = _flow()
    permit = await flow.admit("c")
    assert flow.snapshot().in_flight == 1
    assert repr(permit) == "<Permit running>"
    assert repr(flow) == "<Flow [open, 1 in flight, 0 waiting]>"
    permit.accepted()
    assert flow.snapshot().in_flight == 0
    assert flow.snapshot().requests == 1
    assert repr(permit) == "<Permit spent>"


@pytest.mark.parametrize(
    "end",
    [
        Permit.accepted,
        lambda permit: permit.throttled(delay_seconds=1.0, slow_down=False),
        Permit.failed,
        lambda permit: permit.halted("quota"),
        Permit.dropped,
    ],
    ids=["accepted", "throttled", "failed", "halted", "dropped"],
)
@in_virtual_time
async def test_each_end_gives_the_slot_back_once(end: Callable[[Permit], None]) -> None:
    flow = _flow()
    permit = await flow.admit("c")
    end(permit)
    assert flow.snapshot().in_flight == 0
    with pytest.raises(RuntimeError, match="ends once"):
        end(permit)
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_requests_start_in_the_order_in_which_they_came() -> None:
    flow = _flow(max_concurrency=1)
    order: list[int] = []

    async def apply(number: int) -> None:
        permit = await flow.admit(f"c{number}")
        order.append(number)
        await asyncio.sleep(random.Random(number).random())
        permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(apply(number))
    assert order == list(range(20))


@in_virtual_time
async def test_no_more_run_at_once_than_is_configured() -> None:
    flow = _flow(max_concurrency=7, start=None)
    most = 0

    async def apply() -> None:
        nonlocal most
        for _ in range(20):
            permit = await flow.admit("c")
            most = max(most, flow.snapshot().in_flight)
            await asyncio.sleep(0.5)
            permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(30):
            tasks.create_task(apply())
    assert most == 7


@in_virtual_time
async def test_the_line_waits_for_the_pacer_and_no_longer() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(requests_per_minute=120.0)
    times = []
    for _ in range(21):
        permit = await flow.admit("c")
        times.append(loop.time())
        permit.accepted()
    assert times == pytest.approx([number / 2 for number in range(21)], abs=0.01)


@in_virtual_time
async def test_a_service_without_a_limit_is_drained_without_a_long_ramp() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(start=None)
    left = iter(range(2000))

    async def apply() -> None:
        for _ in left:
            permit = await flow.admit("c")
            await asyncio.sleep(0.1)
            permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(64):
            tasks.create_task(apply())
    assert loop.time() < 7.0  # 3.1 s with all slots from the beginning
    state = flow.snapshot()
    assert state.limit_found_per_second is None
    assert state.slots == 64


@in_virtual_time
async def test_after_an_idle_spell_a_search_begins_anew() -> None:
    flow = _flow(start=None)
    await _warm(flow)
    assert flow.snapshot().slots > 2
    await asyncio.sleep(10.0)
    permit = await flow.admit("c")
    assert flow.snapshot().slots == 1
    permit.accepted()


@in_virtual_time
async def test_a_throttle_closes_for_everybody_until_the_delay_has_passed() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _warm(flow)
    permit = await flow.admit("c")
    at = loop.time()
    permit.throttled(delay_seconds=3.0, slow_down=False)
    waiting = [_admit(flow) for _ in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert 3.05 <= loop.time() - at <= 3.26
    for task in waiting:
        (await task).accepted()
    state = flow.snapshot()
    assert state.throttled == 1
    assert state.seconds_closed == pytest.approx(3.15, abs=0.11)
    assert state.limit_found_per_second is not None


@in_virtual_time
async def test_those_in_line_wait_when_it_closes_before_their_turn() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=2)
    first, second = await _two_at_once(flow)
    third = _admit(flow)
    await _settle()
    at = loop.time()
    first.throttled(delay_seconds=2.0, slow_down=False)
    second.accepted()
    (await third).accepted()
    assert loop.time() - at >= 2.05


async def _two_at_once(flow: Flow) -> tuple[Permit, Permit]:
    await _warm(flow)
    return await flow.admit("c1"), await flow.admit("c2")


@in_virtual_time
async def test_a_turn_that_came_just_before_it_closed_is_not_used() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=2)
    first, second = await _two_at_once(flow)
    waiting = _admit(flow)
    await _settle()
    at = loop.time()
    first.accepted()  # it is the waiting one's turn, but its task has not run yet
    second.throttled(delay_seconds=2.0, slow_down=False)
    (await waiting).accepted()
    assert loop.time() - at >= 2.05
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_whoever_has_no_patience_gives_the_claim_back() -> None:
    flow = _flow()
    await _warm(flow)
    (await flow.admit("c")).throttled(delay_seconds=30.0, slow_down=False)
    with pytest.raises(Closed) as closed:
        await flow.admit("c")
    assert closed.value.delay_seconds == pytest.approx(30.15, abs=0.11)
    patient = _admit(flow, patience_seconds=60.0)
    (await patient).accepted()
    assert asyncio.get_running_loop().time() > 30.0


@in_virtual_time
async def test_a_long_delay_sends_those_in_line_back_at_once() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=1)
    permit = await flow.admit("c")
    waiting = [_admit(flow) for _ in range(5)]
    await _settle()
    at = loop.time()
    permit.throttled(delay_seconds=30.0, slow_down=False)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Closed] * 5
    assert loop.time() == at


@in_virtual_time
async def test_a_503_with_a_delay_closes_like_a_429() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    (await flow.admit("c")).failed(delay_seconds=3.0)
    assert flow.snapshot().closed_for_seconds > 3.0
    assert flow.snapshot().throttled == 0
    (await flow.admit("c")).accepted()
    assert loop.time() >= 3.05


@in_virtual_time
async def test_claiming_waits_while_it_is_closed_for_long() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    assert await flow.ready() is None
    assert loop.time() == 0.0
    (await flow.admit("c")).throttled(delay_seconds=30.0, slow_down=False)
    assert await flow.ready() is None
    assert 25.0 <= loop.time() <= 25.3


@in_virtual_time
async def test_a_halt_sends_everybody_back_at_once() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(max_concurrency=1, events=events)
    permit = await flow.admit("c")
    waiting = [_admit(flow) for _ in range(5)]
    await _settle()
    permit.halted("unauthorized")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Halted] * 5
    assert loop.time() == 0.0
    with pytest.raises(Halted) as halted:
        await flow.admit("c")
    assert (halted.value.reason, halted.value.retry_in_seconds) == ("unauthorized", 5.0)
    assert events == [GateEvent("halted", "unauthorized", next_probe_in_seconds=5.0)]
    state = flow.snapshot()
    assert (state.gate, state.halt_reason, state.halted_since) == (GateState.HALTED, "unauthorized", 0.0)
    assert state.next_probe_in_seconds == 5.0


@in_virtual_time
async def test_a_turn_that_came_just_before_a_halt_is_not_used() -> None:
    flow = _flow(max_concurrency=2)
    first, second = await _two_at_once(flow)
    waiting = _admit(flow)
    await _settle()
    first.accepted()
    second.halted("quota")
    with pytest.raises(Halted):
        await waiting
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_a_probe_that_succeeds_resumes_the_work() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(events=events)
    (await flow.admit("c")).halted("unauthorized")
    assert await flow.ready() == 1
    assert loop.time() == 5.0
    probe = await flow.admit("c")
    assert repr(probe) == "<Permit running probe>"
    assert flow.snapshot().gate is GateState.HALF_OPEN
    assert flow.snapshot().next_probe_in_seconds is None
    with pytest.raises(Halted):
        await flow.admit("another")
    claiming = asyncio.create_task(flow.ready())
    await _settle()
    assert not claiming.done()
    probe.accepted()
    assert await claiming is None
    assert loop.time() == 5.0
    assert events[1:] == [GateEvent("resumed", "unauthorized", halted_seconds=5.0)]
    assert flow.snapshot().slots == 1  # and ramps up from there
    (await flow.admit("c")).accepted()


@in_virtual_time
async def test_probes_go_on_until_one_succeeds() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(events=events)
    (await flow.admit("c")).halted("quota")
    times = []
    for _ in range(4):
        assert await flow.ready() == 1
        times.append(loop.time())
        (await flow.admit("c")).halted("quota")
    assert times == [5.0, 15.0, 35.0, 75.0]
    assert len(events) == 1


@in_virtual_time
async def test_a_claim_for_the_probe_that_comes_to_nothing_is_asked_for_again() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    (await flow.admit("c")).halted("quota")
    assert [await flow.ready() for _ in range(3)] == [1, 1, 1]
    assert loop.time() == 7.0


@in_virtual_time
async def test_five_failures_of_different_completions_halt_as_an_outage() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    for number in range(5):
        (await flow.admit(f"c{number}")).failed()
    with pytest.raises(Halted) as halted:
        await flow.admit("c")
    assert (halted.value.reason, halted.value.retry_in_seconds) == (OUTAGE, 1.0)
    at = loop.time()
    assert await flow.ready() == 1
    assert loop.time() - at == pytest.approx(1.0)


@in_virtual_time
async def test_a_probe_waits_for_a_retry_after() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _warm(flow)
    throttled, refused = await flow.admit("c1"), await flow.admit("c2")
    at = loop.time()
    throttled.throttled(delay_seconds=20.0, slow_down=False)
    refused.halted("unauthorized")
    with pytest.raises(Halted) as halted:
        await flow.admit("c")
    assert halted.value.retry_in_seconds > 20.0
    assert await flow.ready() == 1
    assert loop.time() - at >= 20.05
    (await flow.admit("c")).accepted()


@in_virtual_time
async def test_requests_that_hang_do_not_hold_up_the_probe() -> None:
    flow = _flow(max_concurrency=2)
    hanging, refused = await _two_at_once(flow)
    refused.halted("unauthorized")
    assert await flow.ready() == 1
    probe = await flow.admit("probe")
    assert flow.snapshot().in_flight == 2
    hanging.failed()
    probe.accepted()
    assert flow.snapshot().gate is GateState.OPEN


@in_virtual_time
async def test_the_retry_budget_is_spent_by_retries_and_refilled_by_successes() -> None:
    flow = _flow()
    assert [flow.may_retry() for _ in range(11)] == [True] * 10 + [False]
    (await flow.admit("c")).throttled(delay_seconds=0.0, slow_down=False)
    assert not flow.may_retry()
    for _ in range(10):
        (await flow.admit("c")).accepted()
    assert flow.may_retry()
    assert not flow.may_retry()


@in_virtual_time
async def test_a_slow_service_gets_the_concurrency_that_its_limit_needs() -> None:
    flow = _flow(max_concurrency=200, start=500 / 60)

    async def apply(until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            permit = await flow.admit("c")
            await asyncio.sleep(5.8)
            permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(200):
            tasks.create_task(apply(60.0))
    state = flow.snapshot()
    assert state.requests >= 0.85 * 500
    assert state.slots >= 8.33 * 5.8 * 2


@in_virtual_time
async def test_headers_cap_the_rate() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(start=None)
    times = []
    for _ in range(51):
        permit = await flow.admit("c")
        times.append(loop.time())
        await asyncio.sleep(0.01)
        permit.accepted(limit=600.0, remaining=590.0, reset_seconds=1.0)
    assert times[-1] - times[0] == pytest.approx(5.0, rel=0.05)


@in_virtual_time
async def test_everything_is_told_as_plain_numbers_at_first() -> None:
    state = _flow(start=None).snapshot()
    assert state.rate_per_second == 0.0
    assert (state.in_flight, state.throttled, state.requests) == (0, 0, 0)
    assert (state.gate, state.halt_reason, state.halted_since, state.next_probe_in_seconds) == (
        "open",
        None,
        None,
        None,
    )
    assert (state.seconds_closed, state.closed_for_seconds) == (0.0, 0.0)


@pytest.mark.parametrize("requests_per_minute", [0.0, -1.0, math.nan])
def test_a_cap_that_is_no_rate_is_refused(requests_per_minute: float) -> None:
    with pytest.raises(ValueError, match="requests_per_minute"):
        Flow(max_concurrency=1, requests_per_minute=requests_per_minute)


@pytest.mark.parametrize("start", [0.0, -1.0, math.nan, math.inf])
def test_a_stored_rate_that_is_none_counts_as_none(start: float) -> None:
    assert Flow(max_concurrency=1, start_rate_per_second=start).snapshot().limit_found_per_second is None


def test_a_concurrency_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        Flow(max_concurrency=0)


async def test_it_works_on_the_real_clock_as_well() -> None:
    flow = Flow(max_concurrency=4, start_rate_per_second=1000.0)
    left = iter(range(200))

    async def apply(work: Callable[[], Awaitable[None]]) -> None:
        for number in left:
            permit = await flow.admit(f"c{number}")
            await work()
            if number == 100:
                permit.throttled(delay_seconds=0.01, slow_down=False)
            else:
                permit.accepted()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(apply(lambda: asyncio.sleep(0.001)))
    state = flow.snapshot()
    assert (state.requests, state.in_flight, state.throttled) == (200, 0, 1)
