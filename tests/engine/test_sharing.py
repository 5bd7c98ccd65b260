"""Events of one worker concern all workers of the queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.engine.parts import end, flow, halt, now, others_get_through
from tests.flow.starting import started
from tests.virtual import in_virtual_time
from worker.engine.sharing import Sharing
from worker.flow import SUCCEEDED, End, Ended, Flow, GateEvent, GateState
from worker.queue.memory import MemoryQueue
from worker.queue.notes import EVENT, REFUSAL, WORKER

HEARD_SECONDS = 3.0  # until one worker's event is known to all
IDLE_SECONDS = 13.0  # the same, to an idle worker
UNAUTHORIZED = Ended(End.FAILED, reason="unauthorized")


@dataclass
class Replica:
    """The flow control of one worker, and its notes."""

    flow: Flow
    sharing: Sharing
    halts: list[str]

    async def probe(self, ended: Ended) -> None:
        """Let the next completion be the probe."""
        assert self.flow.take_probe("probe")
        (await self.flow.admit("probe", "update", probe=True)).end(ended)
        self.flow.probe_ended()


@asynccontextmanager
async def replicas(queue: MemoryQueue, count: int = 2) -> AsyncIterator[list[Replica]]:
    """The flow control of so many workers, sharing by this queue until the end."""
    made = [_replica(queue, f"worker:{number}") for number in range(count)]
    tasks = [asyncio.create_task(each.sharing.run()) for each in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _replica(queue: MemoryQueue, owner: str) -> Replica:
    halts: list[str] = []

    def on_transition(event: GateEvent) -> None:
        sharing.gate_changed(event)
        halts.append(f"{event.kind} {event.reason}")

    def on_refused(delay_seconds: float, word: Ended) -> None:
        sharing.refused(delay_seconds, throttled=word.end is End.THROTTLED)

    flow_control = flow(on_transition=on_transition, on_refused=on_refused)
    sharing = Sharing(queue, owner, flow_control, now)
    return Replica(flow_control, sharing, halts)


@in_virtual_time
async def test_workers_that_begin_together_share_the_search_for_a_limit() -> None:
    async with replicas(MemoryQueue(clock=now), 4) as together:
        await asyncio.sleep(0.3)
        counts = await asyncio.gather(*(started(each.flow, 2.0) for each in together))
    alone = await started(flow(), 2.0)
    assert all(each == pytest.approx(alone / 4, rel=0.2) for each in counts)


@in_virtual_time
async def test_a_worker_that_begins_later_knows_of_those_at_work() -> None:
    queue = MemoryQueue(clock=now)
    async with replicas(queue, 3) as others:
        permits = [each.flow.start("c", "update") for each in others]
        await asyncio.sleep(5.0)
        late = _replica(queue, "late")
        await late.sharing.begin()
        assert await started(late.flow, 2.0) == pytest.approx(await started(flow(), 2.0) / 4, rel=0.2)
        assert all(permits)


@in_virtual_time
async def test_workers_that_send_nothing_have_no_part_in_a_search() -> None:
    queue = MemoryQueue(clock=now)
    async with replicas(queue, 9) as others:
        halt(others[0].flow)
        gone = _replica(queue, "gone")
        await gone.sharing.begin()
        assert gone.flow.start("c", "update")
        await gone.sharing._tell_state(0.0)
        await asyncio.sleep(10.0)
        late = _replica(queue, "late")
        await late.sharing.begin()
        assert await started(late.flow, 2.0) == await started(flow(), 2.0)


@in_virtual_time
async def test_a_worker_that_stops_sending_leaves_the_search_to_the_others() -> None:
    async with replicas(MemoryQueue(clock=now), 2) as (one, other):
        permit = other.flow.start("c", "update")
        assert permit
        await asyncio.sleep(3.0)
        permit.end(SUCCEEDED)
        await asyncio.sleep(20.0)
        assert await started(one.flow, 2.0) == await started(flow(), 2.0)


@in_virtual_time
async def test_where_one_is_halted_the_next_failure_for_that_reason_halts_each_other() -> None:
    async with replicas(MemoryQueue(clock=now), 3) as (one, *others):
        halt(one.flow, "unauthorized")
        await asyncio.sleep(HEARD_SECONDS)
        for other in others:
            assert other.flow.gate.is_open
            end(other.flow, Ended(End.FAILED, reason="quota"), completion_id="a")
            assert other.flow.gate.is_open
            end(other.flow, UNAUTHORIZED, completion_id="b")
            assert other.halts == ["halted unauthorized"]


@in_virtual_time
async def test_where_one_is_halted_but_things_get_through_at_another_a_failure_there_is_its_own() -> None:
    async with replicas(MemoryQueue(clock=now)) as (one, other):
        halt(one.flow, "unauthorized")
        await asyncio.sleep(HEARD_SECONDS)
        others_get_through(other.flow)
        end(other.flow, UNAUTHORIZED, completion_id="b")
        assert other.flow.gate.is_open


@in_virtual_time
async def test_a_halt_that_was_only_heard_is_not_told_on() -> None:
    queue = MemoryQueue(clock=now)
    async with replicas(queue, 3) as (one, *_):
        halt(one.flow, "unauthorized")
        await asyncio.sleep(HEARD_SECONDS)
        assert [name for name in await queue.read_notes() if name.startswith(EVENT)] == [f"{EVENT}worker:0"]


@in_virtual_time
async def test_a_pause_of_one_makes_the_others_wait_and_lowers_nothing() -> None:
    async with replicas(MemoryQueue(clock=now)) as (one, other):
        for each in (one, other):
            each.flow.begin_at(50.0)
            await _warm(each)
        under_way = one.flow.start("d", "update")
        assert under_way is not None
        under_way.end(Ended(End.FAILED, reason="outage", delay_seconds=20.0))
        await asyncio.sleep(IDLE_SECONDS)
        assert other.flow.snapshot().closed_for_seconds
        assert other.flow.snapshot().rate_limit_per_second == 50.0


@in_virtual_time
async def test_a_refusal_right_after_a_halt_does_not_hide_it() -> None:
    async with replicas(MemoryQueue(clock=now)) as (one, other):
        await _warm(one)
        under_way = one.flow.start("d", "update")
        assert under_way is not None
        halt(one.flow, "unauthorized")
        under_way.end(Ended(End.THROTTLED, delay_seconds=20.0))
        await asyncio.sleep(IDLE_SECONDS)
        assert other.flow.snapshot().closed_for_seconds
        await asyncio.sleep(IDLE_SECONDS)
        end(other.flow, UNAUTHORIZED)
        assert other.flow.snapshot().gate is GateState.HALTED


async def _warm(replica: Replica) -> None:
    """Past the slow start: more than one request may run."""
    for _ in range(100):
        others_get_through(replica.flow)
        await asyncio.sleep(0.05)


@in_virtual_time
async def test_when_one_goes_on_the_others_may_ask_at_once() -> None:
    async with replicas(MemoryQueue(clock=now)) as (one, other):
        for each in (one, other):
            halt(each.flow, "unauthorized")
        for _ in range(3):
            await other.probe(UNAUTHORIZED)
            await asyncio.sleep(other.flow.next_probe_in_seconds())
        await other.probe(UNAUTHORIZED)
        assert other.flow.next_probe_in_seconds() == 40.0
        await one.probe(SUCCEEDED)
        assert one.flow.gate.is_open
        await asyncio.sleep(HEARD_SECONDS)
        assert other.flow.next_probe_in_seconds() == 0.0
        await other.probe(SUCCEEDED)
        assert other.flow.gate.is_open
        assert other.halts == ["halted unauthorized", "resumed unauthorized"]


@in_virtual_time
async def test_what_one_is_told_to_wait_all_wait() -> None:
    async with replicas(MemoryQueue(clock=now)) as (one, other):
        others_get_through(other.flow)
        end(one.flow, Ended(End.THROTTLED, delay_seconds=20.0))
        await asyncio.sleep(HEARD_SECONDS)
        assert 16.0 < other.flow.snapshot().closed_for_seconds < 20.0
        assert other.flow.snapshot().rate_limit_per_second is not None  # it was sending, and aims lower from here on


@in_virtual_time
@pytest.mark.parametrize("text", ["", "{}", '{"kind":"party","number":1}', '{"kind":"halted"}', "[1]"])
@pytest.mark.parametrize("kind", [EVENT, REFUSAL, WORKER])
async def test_what_cannot_be_understood_is_passed_over(kind: str, text: str) -> None:
    queue = MemoryQueue(clock=now)
    await queue.write_note(f"{kind}stranger:1", text)
    async with replicas(queue) as (one, other):
        halt(one.flow, "quota")
        await asyncio.sleep(HEARD_SECONDS)
        end(other.flow, Ended(End.FAILED, reason="quota"))
        assert other.flow.snapshot().gate is GateState.HALTED


@in_virtual_time
async def test_the_last_word_of_a_worker_that_is_gone_concerns_no_other_and_goes_in_the_end() -> None:
    queue = MemoryQueue(clock=now)
    await queue.write_note(f"{EVENT}gone:1", '{"kind":"halted","number":1,"reason":"unauthorized"}')
    await queue.write_note(f"{WORKER}gone:1", "{}")
    await asyncio.sleep(60.0)
    async with replicas(queue) as (one, other):
        end(one.flow, Ended(End.THROTTLED, delay_seconds=5.0))
        await asyncio.sleep(HEARD_SECONDS)
        assert other.flow.snapshot().closed_for_seconds  # all notes have been read
        assert other.sharing.workers == 2  # these two; the third has gone
        await asyncio.sleep(HEARD_SECONDS)
        end(other.flow, UNAUTHORIZED)
        assert other.flow.snapshot().gate is GateState.OPEN
        await asyncio.sleep(3_600.0)
        assert not any("gone" in name for name in await queue.read_notes())


@in_virtual_time
async def test_a_halt_from_before_this_one_went_on_is_old_news() -> None:
    one = flow()
    halt(one, "quota")
    await asyncio.sleep(10.0)
    assert one.take_probe("c")
    (await one.admit("c", "update", probe=True)).end(SUCCEEDED)
    one.others_halted("quota", age_seconds=5.0)
    end(one, Ended(End.FAILED, reason="quota"))
    assert one.snapshot().gate is GateState.OPEN
    one.others_halted("quota", age_seconds=0.0)
    end(one, Ended(End.FAILED, reason="quota"))
    assert one.snapshot().gate is GateState.HALTED
