"""Calls that take turns: who goes first, and what is given back without a wait."""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from tests.engine.parts import OK, Calling, Script, claim_of, end, halt, running, work_on
from tests.virtual import in_virtual_time
from worker.api import Answer, Kind, Verdict
from worker.engine.calls import GiveBack
from worker.engine.outcome import Deferral
from worker.engine.work import Work
from worker.flow import FAILED, SUCCEEDED

CLAIM = claim_of('{"grade":"A"}')


class Slow(Script):
    """Notes in which order completions are asked for; an answer takes as long as its completion's name is long."""

    def __init__(self) -> None:
        super().__init__([])
        self.order: list[str] = []

    async def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Answer:
        self.order.append(completion_id)
        self.takes_seconds = float(len(completion_id))
        return await super().update(completion_id, metadata, timeout_seconds=timeout_seconds, fresh=fresh)


def work(completion_id: str, *, urgent: bool = False) -> Work:
    made = work_on(msgspec.structs.replace(CLAIM, completion_id=completion_id))
    made.is_urgent = urgent
    return made


@in_virtual_time
async def test_urgent_requests_that_fill_half_of_the_slots_leave_the_next_one_to_the_others() -> None:
    calling = Calling()
    client = Slow()

    async def call(completion_id: str, *, urgent: bool = False) -> None:
        made = work(completion_id, urgent=urgent)

        async def send(seconds: float) -> Answer:
            return await client.update(completion_id, {}, timeout_seconds=seconds)

        await calling.calls.call(made, calling.ledger(made), "update", send, lambda _: SUCCEEDED)

    await asyncio.gather(*[call("-") for _ in range(50)])  # until it has found out how many may run at once
    client.order.clear()
    slots = calling.flow.snapshot().slots
    assert slots == 8
    in_flight = [call(f"urgent-{number}--", urgent=True) for number in range(slots // 2)]
    in_flight += [call(f"other-{number}") for number in range(slots - len(in_flight))]
    with running(*in_flight):
        await asyncio.sleep(1.0)
        assert len(client.order) == slots
        with running(call("urgent", urgent=True), call("usual")):
            await asyncio.sleep(30.0)
    assert client.order[slots] == "usual"
    assert client.order[slots + 1] == "urgent"


@in_virtual_time
async def test_what_is_released_may_be_claimed_again_at_once() -> None:
    stopped, halted, late = Calling(), Calling(), Calling()
    stopped.calls.stopping = True
    halt(halted.flow)
    outlived = work("late")
    outlived.deadline = 0.0
    for calling, made in ((stopped, work("a")), (halted, work("b")), (late, outlived)):
        with pytest.raises(GiveBack) as given_back:
            await calling.call(made)
        assert (given_back.value.deferral, given_back.value.delay_seconds) == (Deferral.RELEASED, 0.0)
        assert calling.client.asked_at == []


@in_virtual_time
async def test_a_worker_that_stops_hands_on_the_failure_that_it_has() -> None:
    calling = Calling(Verdict(Kind.RETRY, 503), OK)
    calling.client.takes_seconds = 1.0
    made, answers = work("a"), list[Answer]()

    async def call() -> None:
        answers.append(await calling.call(made))

    with running(call()):
        await asyncio.sleep(0.5)
        calling.calls.stopping = True
        await asyncio.sleep(1.0)
    assert [answer.verdict.status for answer in answers] == [503]
    end(calling.flow, FAILED)  # the flow goes on for others
