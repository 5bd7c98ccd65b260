"""Waiting can be cancelled at any point, and everything stays consistent."""

import asyncio
import random

import pytest

from tests.virtual import in_virtual_time
from worker.flow import DROPPED, FAILED, SUCCEEDED, Closed, End, Ended, Flow, GateEvent, GateState, Halted, Permit

QUOTA = Ended(End.FAILED, reason="quota")


def _flow(
    *, max_concurrency: int = 1, requests_per_minute: float | None = None, events: list[GateEvent] | None = None
) -> Flow:
    flow = Flow(
        max_concurrency=max_concurrency,
        requests_per_minute=requests_per_minute,
        patience_seconds=5.0,
        clock=asyncio.get_running_loop().time,
        random=random.Random(1),
        on_transition=(events if events is not None else []).append,
    )
    flow.begin_at(1000.0)
    return flow


async def _halt(flow: Flow) -> None:
    """Halt, by five completions that are refused in a row."""
    for number in range(5):
        (await flow.admit(f"refused-{number}", "update")).end(QUOTA)


async def _settle() -> None:
    """Let all tasks run that can, without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def _admit(flow: Flow) -> asyncio.Task[Permit]:
    return asyncio.create_task(flow.admit("c", "update"))


async def _cancel(task: asyncio.Task[Permit]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("place", [0, 1, 2])
@in_virtual_time
async def test_a_request_that_leaves_the_line_holds_up_no_other(place: int) -> None:
    flow = _flow()
    permit = await flow.admit("c", "update")
    waiting = [_admit(flow) for _ in range(3)]
    await _settle()
    await _cancel(waiting.pop(place))
    assert repr(flow) == "<Flow [open, 1 in flight, 2 waiting]>"
    permit.end(SUCCEEDED)
    for task in waiting:
        (await task).end(SUCCEEDED)
    assert repr(flow) == "<Flow [open, 0 in flight, 0 waiting]>"


@in_virtual_time
async def test_the_next_in_line_takes_the_place_of_a_cancelled_head() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(max_concurrency=8, requests_per_minute=60.0)
    (await flow.admit("c", "update")).end(SUCCEEDED)
    head, following = _admit(flow), _admit(flow)
    await asyncio.sleep(0.5)
    await _cancel(head)
    (await following).end(SUCCEEDED)
    assert loop.time() == pytest.approx(1.0, abs=0.001)


@in_virtual_time
async def test_a_turn_granted_to_a_cancelled_request_goes_to_the_next() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    permit = await flow.admit("c", "update")
    lucky, following = _admit(flow), _admit(flow)
    await _settle()
    permit.end(SUCCEEDED)  # the turn is given, but the task has not run yet
    await _cancel(lucky)
    (await following).end(SUCCEEDED)
    assert loop.time() < 0.01
    state = flow.snapshot()
    assert (state.in_flight, state.requests) == (0, 2)


@in_virtual_time
async def test_a_token_of_a_start_that_did_not_happen_is_not_lost() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow(requests_per_minute=60.0)
    permit = await flow.admit("c", "update")
    lucky, following = _admit(flow), _admit(flow)
    await asyncio.sleep(1.5)
    permit.end(SUCCEEDED)
    await _cancel(lucky)
    (await following).end(SUCCEEDED)
    assert loop.time() == 1.5


@in_virtual_time
async def test_a_request_cancelled_while_it_is_sent_back_raises_cancelled() -> None:
    flow = _flow()
    for number in range(4):
        (await flow.admit(f"refused-{number}", "update")).end(QUOTA)
    permit = await flow.admit("c", "update")
    waiting = _admit(flow)
    await _settle()
    permit.end(QUOTA)
    await _cancel(waiting)
    assert repr(flow) == "<Flow [halted, 0 in flight, 0 waiting]>"


@in_virtual_time
async def test_a_cancelled_probe_leaves_another_one_due() -> None:
    loop = asyncio.get_running_loop()
    flow = _flow()
    await _halt(flow)
    assert await flow.ready() == 1
    assert flow.take_probe("c")
    (await flow.admit("c", "update", probe=True)).end(DROPPED)
    flow.probe_ended()
    assert flow.snapshot().gate is GateState.HALTED
    assert await flow.ready() == 1
    assert loop.time() == pytest.approx(0.25, abs=0.01)
    assert flow.take_probe("c")
    (await flow.admit("c", "update", probe=True)).end(SUCCEEDED)
    assert flow.snapshot().gate is GateState.OPEN


@in_virtual_time
async def test_waiting_for_readiness_can_be_cancelled() -> None:
    flow = _flow()
    await _halt(flow)
    assert flow.take_probe("c")
    (await flow.admit("c", "update", probe=True)).end(QUOTA)
    flow.probe_ended()
    claiming = asyncio.create_task(flow.ready())
    await _settle()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert await flow.ready() == 1


@pytest.mark.parametrize("seed", range(8))
@in_virtual_time
async def test_a_storm_of_cancellations_leaves_nothing_behind(seed: int) -> None:
    dice = random.Random(seed)
    halts: list[GateEvent] = []
    flow = _flow(max_concurrency=5, requests_per_minute=dice.choice([None, 1200.0]), events=halts)
    ended, well = 0, True

    async def apply() -> None:
        while True:
            await flow.ready()
            completion_id = f"c{dice.random()}"
            probe = flow.take_probe(completion_id)
            try:
                permit = await flow.admit(completion_id, "update", probe=probe)
            except (Halted, Closed):
                continue
            else:
                await call(permit)
            finally:
                if probe:
                    flow.probe_ended()

    async def call(permit: Permit) -> None:
        nonlocal ended
        try:
            await asyncio.sleep(dice.choice([0.0, 0.01, 0.3]))
        except asyncio.CancelledError:
            permit.end(DROPPED)
            raise
        finally:
            ended += 1
        _end(permit, dice, well=well)

    tasks = [asyncio.create_task(apply()) for _ in range(20)]
    for step in range(600):
        well = step // 50 % 2 == 0
        await asyncio.sleep(dice.choice([0.0, 0.0, 0.1, 4.0]))
        number = dice.randrange(len(tasks))
        tasks[number].cancel()
        tasks[number] = asyncio.create_task(apply())
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    state = flow.snapshot()
    assert state.in_flight == 0
    assert state.requests == ended > 50
    assert halts
    assert repr(flow).endswith("0 in flight, 0 waiting]>")
    await _works_again(flow)


def _end(permit: Permit, dice: random.Random, *, well: bool) -> None:
    weights = [90, 5, 3, 2] if well else [10, 10, 40, 40]
    match dice.choices(["accepted", "throttled", "failed", "refused"], weights)[0]:
        case "accepted":
            permit.end(SUCCEEDED)
        case "throttled":
            permit.end(Ended(End.THROTTLED, delay_seconds=dice.choice([None, 0.1, 8.0])))
        case "failed":
            permit.end(FAILED)
        case "refused":
            permit.end(QUOTA)


async def _works_again(flow: Flow) -> None:
    while True:
        await flow.ready()
        probe = flow.take_probe("last")
        try:
            permit = await flow.admit("last", "update", probe=probe)
        except (Halted, Closed):
            flow.probe_ended()
            continue
        permit.end(SUCCEEDED)
        if flow.snapshot().gate is GateState.OPEN:
            return
