"""The check that no two requests for one completion are in flight at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.simulator.http import Http
from worker.simulator import Counters, Options, Simulator
from worker.simulator.watch import OneWriter


class Gate:
    """A latency that lasts until it is told to end."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self._waiting = 0
        self._changed = asyncio.Condition()

    async def sleep(self, _: float) -> None:
        async with self._changed:
            self._waiting += 1
            self._changed.notify_all()
        await self.opened.wait()

    async def reached_by(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting == count)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def simulator(gate: Gate) -> AsyncIterator[Simulator]:
    async with Simulator(Options(latency=1), sleep=gate.sleep) as simulator:
        simulator.seed_completions(["chatcmpl-1", "chatcmpl-2"])
        yield simulator


async def test_two_updates_of_one_completion_at_once_are_reported(simulator: Simulator, http: Http, gate: Gate) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in ("1", "2", "3"):
            tasks.create_task(http.update(simulator, metadata={"n": number}))
        await gate.reached_by(3)
        gate.opened.set()
    assert simulator.violations == ["chatcmpl-1: two updates in flight at once"] * 3
    assert simulator.counters.overlapping_updates == 3
    assert simulator.read_violations == []


async def test_updates_one_after_another_and_of_different_completions_are_fine(
    simulator: Simulator, http: Http, gate: Gate
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http.update(simulator, "chatcmpl-1", {}))
        tasks.create_task(http.update(simulator, "chatcmpl-2", {}))
        await gate.reached_by(2)
        gate.opened.set()
    for _ in range(3):
        await http.update(simulator, "chatcmpl-1", {})
    assert simulator.violations == []
    assert simulator.counters.in_flight_peak == 2
    assert simulator.counters.in_flight == 0


@pytest.mark.parametrize("update_first", [True, False])
async def test_a_get_at_the_time_of_an_update_is_reported_apart(
    simulator: Simulator, http: Http, gate: Gate, *, update_first: bool
) -> None:
    async with asyncio.TaskGroup() as tasks:
        calls = [http.update(simulator, metadata={}), http.get(simulator)]
        for count, call in enumerate(calls if update_first else reversed(calls), start=1):
            tasks.create_task(call)
            await gate.reached_by(count)
        gate.opened.set()
    assert simulator.read_violations == ["chatcmpl-1: a get and an update in flight at once"]
    assert simulator.counters.overlapping_reads == 1
    assert simulator.violations == []


async def test_two_gets_at_once_are_fine(simulator: Simulator, http: Http, gate: Gate) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http.get(simulator))
        tasks.create_task(http.get(simulator))
        await gate.reached_by(2)
        gate.opened.set()
    assert simulator.read_violations == []


async def test_a_retry_after_the_client_gave_up_is_no_overlap(simulator: Simulator, http: Http, gate: Gate) -> None:
    # The other connection is there already, so that the retry comes as soon as the first one's end.
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http.get(simulator, "/chatcmpl-2"))
        given_up = asyncio.create_task(http.update(simulator, metadata={"n": "1"}))
        await gate.reached_by(2)
        gate.opened.set()
        gate.opened = asyncio.Event()
    given_up.cancel()
    retry = asyncio.create_task(http.update(simulator, metadata={"n": "2"}))
    await gate.reached_by(3)
    gate.opened.set()
    assert (await retry).status == 200
    assert simulator.violations == []
    assert simulator.metadata("chatcmpl-1") == {"n": "2"}


@pytest.mark.parametrize(("seconds", "violations"), [(0.05, 0), (0.2, 1)])
def test_an_end_right_after_the_next_request_is_a_client_that_gave_up(seconds: float, violations: int) -> None:
    counters = Counters()
    writer = OneWriter(counters)
    earlier = writer.enter("chatcmpl-1", "update", 10.0)
    later = writer.enter("chatcmpl-1", "update", 11.0)
    assert repr(writer) == "<OneWriter [1 completions in flight, 0 violations]>"
    writer.leave(earlier, 11.0 + seconds, abandoned=True)
    writer.leave(later, 12.0, abandoned=False)
    assert len(writer.violations) == counters.overlapping_updates == violations


def test_an_answer_right_after_the_next_request_is_an_overlap() -> None:
    writer = OneWriter(Counters())
    earlier = writer.enter("chatcmpl-1", "update", 10.0)
    later = writer.enter("chatcmpl-1", "update", 11.0)
    writer.leave(earlier, 11.0, abandoned=False)
    writer.leave(later, 12.0, abandoned=False)
    assert writer.violations == ["chatcmpl-1: two updates in flight at once"]


def test_countless_violations_are_counted_but_not_all_kept() -> None:
    counters = Counters()
    writer = OneWriter(counters)
    tickets = [writer.enter("chatcmpl-1", "update", 0.0) for _ in range(60)]
    for ticket in tickets:
        writer.leave(ticket, 1.0, abandoned=False)
    assert counters.overlapping_updates == 60 * 59 // 2
    assert len(writer.violations) == 1_000


async def test_an_update_that_was_rejected_counts_like_any_other(simulator: Simulator, http: Http, gate: Gate) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http.update(simulator, metadata={}))
        await gate.reached_by(1)
        simulator.switches.bad_key = True
        assert (await http.update(simulator, metadata={})).status == 401
        gate.opened.set()
    assert len(simulator.violations) == 1
