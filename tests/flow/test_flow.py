"""Flow control as a whole, in virtual time: slots, order, closing, halting, probes."""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.flow.starting import started
from tests.virtual import in_virtual_time
from worker.flow import (
    DROPPED,
    FAILED,
    OUTAGE,
    SUCCEEDED,
    Cause,
    Closed,
    End,
    Ended,
    Flow,
    GateEvent,
    GateState,
    Halted,
    Limits,
    Permit,
)


def _flow(
    *,
    max_concurrency: int = 64,
    start: float | None = 1000.0,
    requests_per_minute: float | None = None,
    patience_seconds: float = 5.0,
    events: list[GateEvent] | None = None,
) -> Flow:
    flow = Flow(
        max_concurrency=max_concurrency,
        requests_per_minute=requests_per_minute,
        patience_seconds=patience_seconds,
        clock=asyncio.get_running_loop().time,
        random=random.Random(1),
        on_transition=(events if events is not None else []).append,
    )
    flow.begin_at(start)
    return flow


async def _warm(flow: Flow, *, answers: int = 200) -> None:
    """Past the slow start."""

    async def apply() -> None:
        for _ in range(answers // 8):
            permit = await flow.admit("warm", "update")
            await asyncio.sleep(0.05)
            permit.end(SUCCEEDED)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(apply())


async def _settle() -> None:
    """Let all tasks run that can, without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def _admit(flow: Flow, completion_id: str = "c") -> asyncio.Task[Permit]:
    return asyncio.create_task(flow.admit(completion_id, "update"))


@in_virtual_time
async def test_a_request_may_start_at_once_when_nothing_holds_it_back() -> None:
    flow = _flow()
    permit = await flow.admit("c", "update")
    assert flow.snapshot().in_flight == 1
    assert repr(permit) == "<Permit running>"
    assert repr(flow) == "<Flow [open, 1 in flight, 0 waiting]>"
    permit.end(SUCCEEDED)
    assert flow.snapshot().in_flight == 0
    assert flow.snapshot().requests == 1
    assert repr(permit) == "<Permit spent>"


@pytest.mark.parametrize(
    "end",
    [
        SUCCEEDED,
        Ended(End.THROTTLED, delay_seconds=1.0),
        FAILED,
        Ended(End.FAILED, reason="quota"),
        Ended(End.ANSWERED),
        Ended(End.ABSENT),
        Ended(End.REJECTED, reason="400 bad"),
        DROPPED,
    ],
    ids=lambda ended: f"{ended.end} {ended.reason}".strip(),
)
@in_virtual_time
async def test_each_end_gives_the_slot_back_once(end: Ended) -> None:
    flow = _flow()
    permit = await flow.admit("c", "update")
    permit.end(end)
    assert flow.snapshot().in_flight == 0
    with pytest.raises(RuntimeError, match=r"^a permit ends once$"):
        permit.end(end)
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_requests_start_in_the_order_in_which_they_came() -> None:
    flow = _flow(max_concurrency=1)
    order: list[int] = []

    async def apply(number: int) -> None:
        permit = await flow.admit(f"c{number}", "update")
        order.append(number)
        await asyncio.sleep(random.Random(number).random())
        permit.end(SUCCEEDED)

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(apply(number))
    assert order == list(range(20))


async def test_no_request_overtakes_those_in_line_though_it_might_start() -> None:
    now = 0.0
    flow = Flow(max_concurrency=8, requests_per_minute=60.0, patience_seconds=5.0, clock=lambda: now)
    first = flow.start("a", "update")
    assert first is not None
    first.end(SUCCEEDED)
    waiting = _admit(flow)
    await _settle()
    now = 10.0  # no timer has told the line as yet
    assert flow.start("b", "update") is None
    waiting.cancel()
    await asyncio.wait([waiting])
    assert flow.start("b", "update")


@in_virtual_time
async def test_no_more_run_at_once_than_is_configured() -> None:
    flow = _flow(max_concurrency=7, start=None)
    most = 0

    async def apply() -> None:
        nonlocal most
        for _ in range(20):
            permit = await flow.admit("c", "update")
            most = max(most, flow.snapshot().in_flight)
            await asyncio.sleep(0.5)
            permit.end(SUCCEEDED)

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
        permit = await flow.admit("c", "update")
        times.append(loop.time())
        permit.end(SUCCEEDED)
    assert times == pytest.approx([number / 2 for number in range(21)], abs=0.01)


@in_virtual_time
async def test_a_service_without_a_limit_is_drained_without_a_long_ramp() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(start=None)
    left = iter(range(2000))

    async def apply() -> None:
        for _ in left:
            permit = await flow.admit("c", "update")
            await asyncio.sleep(0.1)
            permit.end(SUCCEEDED)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(64):
            tasks.create_task(apply())
    assert loop.time() < 7.0  # 3.1 s with all slots from the beginning
    state = flow.snapshot()
    assert state.rate_limit_per_second is None
    assert state.slots == 64


@in_virtual_time
async def test_a_throttle_stops_all_requests_until_the_delay_has_passed() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _warm(flow)
    permit = await flow.admit("c", "update")
    at = loop.time()
    permit.end(Ended(End.THROTTLED, delay_seconds=3.0))
    waiting = [_admit(flow) for _ in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert 3.05 <= loop.time() - at <= 3.26
    for task in waiting:
        (await task).end(SUCCEEDED)
    state = flow.snapshot()
    assert state.throttled == 1
    assert state.seconds_closed == pytest.approx(3.15, abs=0.11)
    assert state.rate_limit_per_second is not None


@in_virtual_time
async def test_requests_in_line_wait_when_the_pacer_closes() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=2)
    first, second = await _two_at_once(flow)
    third = _admit(flow)
    await _settle()
    at = loop.time()
    first.end(Ended(End.THROTTLED, delay_seconds=2.0))
    second.end(SUCCEEDED)
    (await third).end(SUCCEEDED)
    assert loop.time() - at >= 2.05


async def _two_at_once(flow: Flow) -> tuple[Permit, Permit]:
    await _warm(flow)
    return await flow.admit("c1", "update"), await flow.admit("c2", "update")


@in_virtual_time
async def test_a_turn_granted_just_before_the_pacer_closes_is_not_used() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=2)
    first, second = await _two_at_once(flow)
    waiting = _admit(flow)
    await _settle()
    at = loop.time()
    first.end(SUCCEEDED)  # it is the waiting one's turn, but its task has not run yet
    second.end(Ended(End.THROTTLED, delay_seconds=2.0))
    (await waiting).end(SUCCEEDED)
    assert loop.time() - at >= 2.05
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_a_delay_beyond_patience_raises_closed() -> None:
    flow = _flow()
    await _warm(flow)
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=30.0))
    with pytest.raises(Closed) as closed:
        await flow.admit("c", "update")
    assert closed.value.delay_seconds == pytest.approx(30.15, abs=0.11)
    patient = _flow(patience_seconds=60.0)
    (await patient.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=30.0))
    (await patient.admit("c", "update")).end(SUCCEEDED)
    assert asyncio.get_running_loop().time() > 30.0


@pytest.mark.parametrize("end", [End.THROTTLED, End.FAILED])
@in_virtual_time
async def test_a_long_delay_sends_requests_in_line_back_at_once(end: End) -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=1)
    permit = await flow.admit("c", "update")
    waiting = [_admit(flow) for _ in range(5)]
    await _settle()
    at = loop.time()
    permit.end(Ended(end, delay_seconds=30.0))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Closed] * 5
    assert loop.time() == at


@in_virtual_time
async def test_a_503_with_a_delay_closes_like_a_429() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    (await flow.admit("c", "update")).end(Ended(End.FAILED, delay_seconds=3.0))
    assert flow.snapshot().closed_for_seconds > 3.0
    assert flow.snapshot().throttled == 0
    (await flow.admit("c", "update")).end(SUCCEEDED)
    assert loop.time() >= 3.05


@in_virtual_time
async def test_claiming_waits_during_a_long_delay() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    assert await flow.ready() is None
    assert loop.time() == 0.0
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=30.0))
    assert await flow.ready() is None
    assert 25.0 <= loop.time() <= 25.3


def _word(reason: str) -> Ended:
    return Ended(End.FAILED, reason)


async def _halt(flow: Flow, reason: str) -> None:
    """Five different completions meet a refusal that may hit all."""
    for number in range(5):
        (await flow.admit(f"halting-{number}", "update")).end(_word(reason))


async def _probe(flow: Flow, completion_id: str = "c") -> Permit:
    """The permit of the next probe."""
    assert await flow.ready() == 1
    assert flow.take_probe(completion_id)
    return await flow.admit(completion_id, "update", probe=True)


@in_virtual_time
async def test_a_halt_sends_all_requests_in_line_back_at_once() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(max_concurrency=1, events=events)
    for number in range(4):
        (await flow.admit(f"c{number}", "update")).end(_word("unauthorized"))
    permit, at = await flow.admit("c", "update"), loop.time()
    waiting = [_admit(flow) for _ in range(5)]
    await _settle()
    permit.end(_word("unauthorized"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Halted] * 5
    assert loop.time() == at
    with pytest.raises(Halted) as halted:
        await flow.admit("c", "update")
    assert halted.value.reason == "unauthorized"
    cause = Cause("unauthorized", completion_id="c")
    assert events == [GateEvent("halted", cause, "update", next_probe_in_seconds=0.0)]
    state = flow.snapshot()
    assert (state.gate, state.cause, state.halted_for_seconds) == (GateState.HALTED, cause, 0.0)
    assert state.next_probe_in_seconds == 0.0


@in_virtual_time
async def test_a_turn_that_came_just_before_a_halt_is_not_used() -> None:
    flow = _flow(max_concurrency=3)
    first, second = await _two_at_once(flow)
    for number in range(4):
        (await flow.admit(f"failed-{number}", "update")).end(_word("quota"))
    third = await flow.admit("c3", "update")
    waiting = _admit(flow)
    await _settle()
    first.end(Ended(End.ANSWERED))
    second.end(_word("quota"))
    with pytest.raises(Halted):
        await waiting
    third.end(DROPPED)
    assert flow.snapshot().in_flight == 0


@in_virtual_time
async def test_a_probe_that_succeeds_resumes_the_work() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(events=events)
    await _halt(flow, "unauthorized")
    at = loop.time()
    probe = await _probe(flow)
    assert loop.time() == at
    assert repr(probe) == "<Permit running probe>"
    assert probe.completion_id == "c"
    assert flow.snapshot().gate is GateState.HALF_OPEN
    assert flow.snapshot().next_probe_in_seconds is None
    with pytest.raises(Halted):
        await flow.admit("another", "update")
    claiming = asyncio.create_task(flow.ready())
    await _settle()
    assert not claiming.done()
    await asyncio.sleep(3.0)
    probe.end(SUCCEEDED)
    assert await claiming is None
    cause = Cause("unauthorized", completion_id="halting-4")
    assert events[1:] == [GateEvent("resumed", cause, "update", halted_seconds=3.0)]
    (await flow.admit("c", "update")).end(SUCCEEDED)


@in_virtual_time
async def test_probes_go_on_until_one_succeeds() -> None:
    loop = asyncio.get_running_loop()
    events: list[GateEvent] = []
    flow = _flow(events=events)
    await _halt(flow, "quota")
    begins, times = loop.time(), []
    for number in range(5):
        probe = await _probe(flow, f"probe-{number}")
        times.append(loop.time() - begins)
        probe.end(_word("quota"))
        flow.probe_ended()
    assert times == [0.0, 5.0, 15.0, 35.0, 75.0]
    assert len(events) == 1


@in_virtual_time
async def test_a_probe_that_makes_no_request_leaves_another_due() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _halt(flow, "quota")
    begins = loop.time()
    for number in range(3):
        assert await flow.ready() == 1
        assert flow.take_probe(f"c{number}")
        flow.probe_ended()
    assert loop.time() - begins == pytest.approx(0.25 + 0.5)  # longer each time


@in_virtual_time
async def test_five_failures_of_different_completions_halt_as_an_outage() -> None:
    flow = _flow()
    for number in range(5):
        (await flow.admit(f"c{number}", "update")).end(FAILED)
    with pytest.raises(Halted) as halted:
        await flow.admit("c", "update")
    assert halted.value.reason == OUTAGE


@in_virtual_time
async def test_a_probe_waits_for_a_retry_after() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _warm(flow)
    throttled = await flow.admit("c1", "update")
    refused = [await flow.admit(f"c{number}", "update") for number in range(5)]
    at = loop.time()
    throttled.end(Ended(End.THROTTLED, delay_seconds=20.0))
    for permit in refused:
        permit.end(_word("unauthorized"))
    with pytest.raises(Halted):
        await flow.admit("c", "update")
    probe = await _probe(flow)
    assert loop.time() - at >= 20.05
    probe.end(SUCCEEDED)


@pytest.mark.parametrize("end", [Ended(End.THROTTLED, alone=True), Ended(End.FAILED, "unauthorized")])
@in_virtual_time
async def test_the_end_of_a_probe_wakes_who_waits_for_the_next(end: Ended) -> None:
    flow = _flow()
    await _halt(flow, "unauthorized")
    probe = await _probe(flow)
    claiming = asyncio.create_task(flow.ready())
    await _settle()
    probe.end(end)
    assert await claiming == 1


@in_virtual_time
async def test_requests_that_hang_do_not_hold_up_the_probe() -> None:
    flow = _flow(max_concurrency=2)
    hanging, other = await _two_at_once(flow)
    other.end(Ended(End.ANSWERED))
    await _halt(flow, "unauthorized")
    probe = await _probe(flow)
    assert flow.snapshot().in_flight == 2
    hanging.end(FAILED)
    probe.end(SUCCEEDED)
    assert flow.snapshot().gate is GateState.OPEN


@in_virtual_time
async def test_the_retry_budget_is_spent_by_retries_and_refilled_by_successes() -> None:
    flow = _flow()
    (await flow.admit("c", "update")).end(SUCCEEDED)  # a full budget gets no fuller
    assert [flow.may_retry() for _ in range(11)] == [True] * 10 + [False]
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=0.0))
    assert not flow.may_retry()
    for succeeded, retries in ((10, 1), (9, 0), (1, 1), (1000, 10)):
        for _ in range(succeeded):
            (await flow.admit("c", "update")).end(SUCCEEDED)
        assert [flow.may_retry() for _ in range(retries + 1)] == [True] * retries + [False]


@in_virtual_time
async def test_a_slow_service_gets_the_concurrency_that_its_limit_needs() -> None:
    flow = _flow(max_concurrency=200, start=500 / 60)

    async def apply(until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            permit = await flow.admit("c", "update")
            await asyncio.sleep(5.8)
            permit.end(SUCCEEDED)

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
        permit = await flow.admit("c", "update")
        times.append(loop.time())
        await asyncio.sleep(0.01)
        permit.end(Ended(End.SUCCEEDED, limits=Limits(600.0, 590.0, 1.0)))
    assert times[-1] - times[0] == pytest.approx(5.0, rel=0.05)


@in_virtual_time
async def test_everything_is_told_as_plain_numbers_at_first() -> None:
    state = _flow(start=None).snapshot()
    assert state.rate_per_second == 0.0
    assert (state.in_flight, state.throttled, state.requests) == (0, 0, 0)
    assert (state.gate, state.cause, state.halted_for_seconds, state.next_probe_in_seconds) == (
        "open",
        None,
        None,
        None,
    )
    assert (state.seconds_closed, state.closed_for_seconds) == (0.0, 0.0)


@pytest.mark.parametrize("requests_per_minute", [0.0, -1.0, math.nan])
def test_a_cap_that_is_not_a_rate_is_refused(requests_per_minute: float) -> None:
    with pytest.raises(ValueError, match="requests_per_minute"):
        Flow(max_concurrency=1, requests_per_minute=requests_per_minute, patience_seconds=5.0, clock=time.monotonic)


@pytest.mark.parametrize("start", [0.0, -1.0, math.nan, math.inf])
def test_a_stored_rate_that_makes_no_sense_is_ignored(start: float) -> None:
    flow = Flow(max_concurrency=1, patience_seconds=5.0, clock=time.monotonic)
    flow.begin_at(start)
    assert flow.snapshot().rate_limit_per_second is None


def test_a_cap_below_one_a_minute_is_a_rate() -> None:
    flow = Flow(max_concurrency=1, requests_per_minute=0.5, patience_seconds=5.0, clock=lambda: 0.0)
    permit = flow.start("c", "update")
    assert permit is not None
    assert not permit.is_urgent
    permit.end(SUCCEEDED)
    assert flow.wait_seconds() == pytest.approx(120.0)


def test_a_concurrency_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        Flow(max_concurrency=0, patience_seconds=5.0, clock=time.monotonic)


async def test_flow_control_works_on_the_real_clock() -> None:
    flow = Flow(max_concurrency=4, patience_seconds=5.0, clock=time.monotonic)
    flow.begin_at(1000.0)
    left = iter(range(200))

    async def apply(work: Callable[[], Awaitable[None]]) -> None:
        for number in left:
            permit = await flow.admit(f"c{number}", "update")
            await work()
            if number == 100:
                permit.end(Ended(End.THROTTLED, delay_seconds=0.01))
            else:
                permit.end(SUCCEEDED)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(apply(lambda: asyncio.sleep(0.001)))
    state = flow.snapshot()
    assert (state.requests, state.in_flight, state.throttled) == (200, 0, 1)


@in_virtual_time
async def test_after_an_hour_of_a_longer_delay_work_goes_on() -> None:
    flow = _flow()
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=86_400.0))
    with pytest.raises(Closed):
        await flow.admit("c", "update")
    await asyncio.sleep(3600.0)
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=86_400.0))
    with pytest.raises(Closed):
        await flow.admit("d", "update")


@pytest.mark.parametrize(("delay_seconds", "told"), [(None, 0), (1.0, 1)])
@in_virtual_time
async def test_a_refusal_that_may_be_chance_is_not_reported(delay_seconds: float | None, told: int) -> None:
    refusals: list[float] = []
    flow = Flow(
        max_concurrency=8,
        patience_seconds=5.0,
        clock=asyncio.get_running_loop().time,
        random=random.Random(1),
        on_refused=lambda seconds, _: refusals.append(seconds),
    )
    flow.begin_at(100.0)
    await _warm(flow)
    (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=delay_seconds))
    assert len(refusals) == told


@in_virtual_time
async def test_urgent_requests_that_started_at_once_count_for_their_half() -> None:
    flow = _flow(max_concurrency=8, start=None)
    await _warm(flow)
    urgent: list[Permit] = []
    while (permit := flow.start(f"urgent-{len(urgent)}", "update", urgent=True)) is not None:
        urgent.append(permit)
    assert len(urgent) == 8
    waiting_urgent = [asyncio.create_task(flow.admit(f"next-{number}", "update", urgent=True)) for number in range(8)]
    waiting = [asyncio.create_task(flow.admit(f"usual-{number}", "update")) for number in range(8)]
    await asyncio.sleep(0)
    for ended in range(1, 5):
        urgent.pop().end(SUCCEEDED)
        await asyncio.sleep(0)
        assert (sum(task.done() for task in waiting), sum(task.done() for task in waiting_urgent)) == (ended, 0)
    for task in (*waiting, *waiting_urgent):
        task.cancel()


@in_virtual_time
async def test_how_many_requests_may_start_is_known_with_a_limit_or_a_cap() -> None:
    assert _flow(start=None).starts_within(1.0) is None
    capped = _flow(start=None, requests_per_minute=120.0)
    assert capped.starts_within(10.0) == 20
    assert capped.starts_within(0.1) == 1  # one at least
    assert capped.starts_within(1.2) == 3  # a part of one is one


@in_virtual_time
async def test_where_others_use_a_part_of_the_cap_at_most_twice_what_started_of_late_may_start() -> None:
    flow = _flow(start=None, requests_per_minute=6_000.0)
    for _ in range(10):
        await asyncio.sleep(0.1)
        (await flow.admit("c", "update")).end(SUCCEEDED)
    assert flow.starts_within(10.0) == 100  # ten in the latest two seconds
    await asyncio.sleep(60.0)
    assert flow.starts_within(10.0) == 1_000  # nothing of late says nothing


@in_virtual_time
async def test_a_probe_starts_only_in_the_work_that_is_the_probe_and_after_a_delay() -> None:
    flow = _flow()
    assert flow.start_probe("c", "update") is None  # the gate is open
    await _halt(flow, "quota")
    assert flow.start_probe("c", "update") is None  # no work is the probe
    assert flow.take_probe("c")
    flow.others_paused(0.5)
    assert flow.start_probe("c", "update") is None
    assert not flow.take_probe("d")
    await asyncio.sleep(1.0)
    probe = flow.start_probe("c", "get")
    assert probe is not None
    at = asyncio.get_running_loop().time()
    assert (probe.completion_id, probe.operation, probe.sent_at, probe.is_probe) == ("c", "get", at, True)


@pytest.mark.parametrize(
    ("start", "age_seconds", "below"), [(0.5, 0.0, 0.015), (50.0, 600.0, 0.06), (50.0, 600.1, 0.05)]
)
@in_virtual_time
async def test_an_earlier_runs_limit_is_kept_and_an_old_one_is_sought_again(
    start: float, age_seconds: float, below: float
) -> None:
    flow = _flow(start=None)
    flow.begin_at(start, age_seconds)
    assert flow.snapshot().rate_limit_per_second == start
    assert flow.snapshot().rate_per_second == pytest.approx(start * (1.0 - below), rel=0.001)


@in_virtual_time
async def test_the_state_tells_when_what_got_through_was_started() -> None:
    flow = _flow()
    await asyncio.sleep(1.0)
    permit = await flow.admit("c", "get")
    await asyncio.sleep(0.5)
    permit.end(SUCCEEDED)
    await asyncio.sleep(2.0)
    assert flow.snapshot().got_through_seconds_ago == {"get": 2.5}


@pytest.mark.parametrize("word", [SUCCEEDED, FAILED], ids=["succeeded", "failed"])
@in_virtual_time
async def test_a_latency_is_measured_from_the_start_of_its_request(word: Ended) -> None:
    flow = _flow(max_concurrency=64, start=10.0)
    await asyncio.sleep(1000.0)

    async def apply(number: int) -> None:
        permit = await flow.admit(f"c{number}", "update")
        await asyncio.sleep(1.0)
        permit.end(SUCCEEDED if number % 20 else word)

    async with asyncio.TaskGroup() as tasks:
        for number in range(400):
            tasks.create_task(apply(number))
    hanging = [_admit(flow, f"d{number}") for number in range(64)]
    await asyncio.sleep(60.0)
    assert 16 <= flow.snapshot().in_flight <= 30  # twice what ten a second need that take a second each
    for task in hanging:
        task.cancel()


@pytest.mark.parametrize("end", [End.THROTTLED, End.FAILED])
@in_virtual_time
async def test_a_request_to_wait_is_reported_with_its_delay_and_the_answer(end: End) -> None:
    told: list[tuple[float, Ended]] = []
    flow = Flow(
        max_concurrency=8,
        patience_seconds=5.0,
        clock=asyncio.get_running_loop().time,
        on_refused=lambda seconds, ended: told.append((seconds, ended)),
    )
    word = Ended(end, delay_seconds=3.0, error="slower")
    (await flow.admit("c", "update")).end(word)
    [(seconds, ended)] = told
    assert 3.05 <= seconds <= 3.25
    assert ended is word


@pytest.mark.parametrize("word", [FAILED, Ended(End.FAILED, reason=OUTAGE, delay_seconds=3.0, guilty=True)])
@in_virtual_time
async def test_a_failure_that_asks_for_no_delay_or_is_a_completions_own_makes_nobody_wait(word: Ended) -> None:
    told: list[float] = []
    flow = Flow(
        max_concurrency=8,
        patience_seconds=5.0,
        clock=asyncio.get_running_loop().time,
        on_refused=lambda seconds, _: told.append(seconds),
    )
    (await flow.admit("c", "update")).end(word)
    assert told == []
    assert flow.snapshot().closed_for_seconds == 0.0


@in_virtual_time
async def test_each_throttled_answer_is_counted() -> None:
    flow = _flow()
    for completion_id in "abc":
        (await flow.admit(completion_id, "update")).end(Ended(End.THROTTLED, delay_seconds=0.0))
    assert flow.snapshot().throttled == 3


@in_virtual_time
async def test_a_permit_says_whether_its_request_went_before_others() -> None:
    flow = _flow(max_concurrency=1)
    for urgent in (True, False):
        first = await flow.admit("c", "update", urgent=urgent)
        waiting = asyncio.create_task(flow.admit("d", "get", urgent=urgent))
        await _settle()
        first.end(SUCCEEDED)
        second = await waiting
        second.end(SUCCEEDED)
        assert (first.is_urgent, second.is_urgent) == (urgent, urgent)
        assert (second.completion_id, second.operation) == ("d", "get")
        await asyncio.sleep(1.0)
        at_once = flow.start("e", "update", urgent=urgent)
        assert at_once is not None
        assert at_once.is_urgent is urgent
        at_once.end(SUCCEEDED)


def test_what_stops_a_request_says_so() -> None:
    assert str(Halted("quota")) == "halted: quota"
    assert str(Closed(1.5)) == "closed for another 1.500 s"


@in_virtual_time
async def test_while_all_completions_meet_the_same_one_claim_and_one_request_a_second_start() -> None:
    loop, flow = asyncio.get_running_loop(), _flow()
    await _warm(flow)
    for number in range(20):
        assert await flow.ready() is None
        (await flow.admit(f"c{number}", "update")).end(Ended(End.ABSENT))
    assert await flow.ready() == 1
    times = []
    for number in range(4):
        permit = await flow.admit(f"d{number}", "update")
        times.append(loop.time())
        assert flow.start("e", "update") is None
        if number < 3:
            permit.end(Ended(End.ABSENT))
    between = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert between == pytest.approx([1.0] * 3, abs=1e-6)
    assert flow.wait_seconds() == pytest.approx(1.0)
    permit.end(SUCCEEDED)
    assert await flow.ready() is None
    assert flow.wait_seconds() < 0.5
    assert flow.start("e", "update")


@in_virtual_time
async def test_how_long_a_start_may_take_is_told_by_slots_and_pace_and_endless_in_a_pause_or_halt() -> None:
    flow = _flow(max_concurrency=2, start=None, requests_per_minute=6.0)
    assert flow.wait_seconds() == 0.0
    permit = await flow.admit("c", "update")
    assert flow.wait_seconds() == pytest.approx(10.0)
    permit.end(SUCCEEDED)
    assert flow.wait_seconds() == pytest.approx(10.0)
    flow.pause(paused=True)
    assert math.isinf(flow.wait_seconds())
    flow.pause(paused=False)
    flow = _flow(max_concurrency=1)
    permit = await flow.admit("c", "update")
    assert math.isinf(flow.wait_seconds())  # only its end makes room
    permit.end(SUCCEEDED)
    await _halt(flow, "quota")
    assert math.isinf(flow.wait_seconds())


@in_virtual_time
async def test_a_search_begins_with_the_first_request_however_late_it_comes() -> None:
    flow = _flow(start=None)
    await asyncio.sleep(100.0)
    await flow.admit("c", "update")
    assert flow.wait_seconds() > 0.0


@in_virtual_time
async def test_urgent_requests_that_wait_get_half_of_the_slots() -> None:
    flow = _flow(max_concurrency=8, start=1_000.0)
    await _warm(flow)
    for _ in range(8):
        (await flow.admit("u", "update", urgent=True)).end(SUCCEEDED)
    permits = [await flow.admit(f"c{number}", "update") for number in range(8)]
    urgent = [asyncio.create_task(flow.admit(f"u{number}", "update", urgent=True)) for number in range(8)]
    usual = [_admit(flow, f"d{number}") for number in range(8)]
    await asyncio.sleep(0)
    for permit in permits:
        permit.end(SUCCEEDED)
        await asyncio.sleep(0)
    assert (sum(task.done() for task in urgent), sum(task.done() for task in usual)) == (4, 4)
    for task in (*urgent, *usual):
        task.cancel()


@in_virtual_time
async def test_workers_that_search_together_grow_as_much_more_slowly() -> None:
    alone = await started(_flow(start=None), 5.0)
    flow = _flow(start=None)
    flow.others_at_work(3)
    assert await started(flow, 5.0) == pytest.approx(alone / 4, rel=0.1)


@in_virtual_time
async def test_a_slow_down_makes_the_way_back_to_the_limit_long() -> None:
    rates = []
    for slow_down in (False, True):
        flow = _flow(start=50.0)
        await _warm(flow)
        (await flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=1.0, slow_down=slow_down))
        await asyncio.sleep(2.0)
        await started(flow, 60.0)
        rates.append(flow.snapshot().rate_per_second)
    usual, slow = rates
    assert slow < 0.99 * usual
