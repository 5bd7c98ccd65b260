"""What happens to one worker concerns all that work on the same queue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.queue.backends import Clock
from worker.engine.sharing import Sharing
from worker.flow import Flow, GateEvent, GateState
from worker.queue.memory import MemoryQueue
from worker.queue.notes import EVENT, WORKER

LONG = 30.0


@dataclass
class Replica:
    """The flow control of one worker, and what it tells and hears."""

    flow: Flow
    sharing: Sharing
    halts: list[str]


@asynccontextmanager
async def replicas(queue: MemoryQueue, count: int = 2) -> AsyncIterator[list[Replica]]:
    """As many workers' flow control, sharing by this queue until the end."""
    made = [_replica(queue, f"worker:{number}") for number in range(count)]
    tasks = [asyncio.create_task(each.sharing.keep(each.flow)) for each in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _replica(queue: MemoryQueue, owner: str) -> Replica:
    sharing, halts = Sharing(queue, owner), list[str]()

    def on_transition(event: GateEvent) -> None:
        sharing.transition(event)
        halts.append(f"{event.kind} {event.reason}")

    flow = Flow(max_concurrency=4, on_transition=on_transition, on_refused=sharing.refused)
    return Replica(flow, sharing, halts)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_halts_one_halts_all_and_is_not_told_on() -> None:
    queue = MemoryQueue()
    async with replicas(queue, 3) as (one, *others):
        (await one.flow.admit("c")).halted("unauthorized")
        await until(lambda: all(each.flow.snapshot().gate is GateState.HALTED for each in others))
        assert [each.halts for each in others] == [["halted unauthorized"]] * 2
        assert [name for name in await queue.read_notes() if name.startswith(EVENT)] == [f"{EVENT}worker:0"]


async def test_a_refusal_right_after_a_halt_does_not_hide_it() -> None:
    async with replicas(MemoryQueue()) as (one, other):
        halted, refused = await one.flow.admit("c"), await one.flow.admit("d")
        halted.halted("unauthorized")
        refused.throttled(delay_seconds=20.0, slow_down=False)  # was under way
        await until(lambda: other.flow.snapshot().closed_for_seconds)
        await until(lambda: other.flow.snapshot().gate is GateState.HALTED)


async def test_when_one_goes_on_the_others_may_ask_at_once() -> None:
    async with replicas(MemoryQueue()) as (one, other):
        (await one.flow.admit("c")).halted("unauthorized")
        await until(lambda: other.flow.snapshot().gate is GateState.HALTED)
        one.flow.others_resumed()  # so that its probe need not be waited for
        (await one.flow.admit("c")).accepted()
        assert one.flow.snapshot().gate is GateState.OPEN
        await until(lambda: other.flow.snapshot().next_probe_in_seconds == 0.0)
        (await other.flow.admit("c")).accepted()
        assert other.flow.snapshot().gate is GateState.OPEN
        assert other.halts == ["halted unauthorized", "resumed unauthorized"]


async def test_what_one_is_told_to_wait_all_wait() -> None:
    async with replicas(MemoryQueue()) as (one, other):
        (await other.flow.admit("c")).accepted()
        (await one.flow.admit("c")).throttled(delay_seconds=20.0, slow_down=False)
        await until(lambda: other.flow.snapshot().closed_for_seconds)
        assert 10.0 < other.flow.snapshot().closed_for_seconds < 21.0
        assert other.flow.snapshot().limit_found_per_second is not None  # it was sending, and aims lower from here on


@pytest.mark.parametrize("text", ["", "{}", '{"kind":"party","number":1}', '{"kind":"halted"}', "[1]"])
async def test_what_cannot_be_understood_is_passed_over(text: str) -> None:
    queue = MemoryQueue()
    await queue.write_note(f"{EVENT}stranger:1", text)
    async with replicas(queue) as (one, other):
        (await one.flow.admit("c")).halted("quota")
        await until(lambda: other.flow.snapshot().gate is GateState.HALTED)


async def test_the_last_word_of_a_worker_that_is_gone_halts_nobody_and_goes_in_the_end() -> None:
    clock = Clock()
    queue = MemoryQueue(clock=clock)
    await queue.write_note(f"{EVENT}gone:1", '{"kind":"halted","number":1,"reason":"unauthorized"}')
    await queue.write_note(f"{WORKER}gone:1", "{}")
    await clock.advance(60)
    async with replicas(queue) as (one, other):
        (await one.flow.admit("c")).throttled(delay_seconds=5.0, slow_down=False)
        await until(lambda: other.flow.snapshot().closed_for_seconds)  # by then, all notes have been read
        assert other.flow.snapshot().gate is GateState.OPEN
        assert other.sharing.workers == 1
        await clock.advance(3_600)
        async with asyncio.timeout(LONG):
            while any("gone" in name for name in await queue.read_notes()):
                await asyncio.sleep(0.05)


async def test_a_halt_from_before_this_one_went_on_is_old_news() -> None:
    flow = Flow(max_concurrency=4)
    flow.others_halted("quota", age_seconds=0.0)
    flow.others_resumed()
    (await flow.admit("c")).accepted()
    flow.others_halted("quota", age_seconds=5.0)
    assert flow.snapshot().gate is GateState.OPEN
