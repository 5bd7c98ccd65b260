"""The reader: how much it claims, when it asks, and what it does while nothing may start."""

import asyncio
import sys
from typing import Any

import pytest

from tests.engine.parts import end, events, flow, halt, leases_on, now, queue_with, running
from tests.engine.virtual import ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.changes import MetadataChange
from worker.engine.reader import Reader
from worker.engine.work import BYTES_OF_A_CHANGE, Work
from worker.flow import FAILED, SUCCEEDED, End, Ended
from worker.queue import Claim, Settlement, Store


class _Claims(WrappedQueue):
    """Keeps when claims were asked for, how many, and from which place."""

    takes_seconds = 0.0

    def __init__(self, queue: Store) -> None:
        super().__init__(queue)
        self.asked: list[tuple[float, int]] = []
        self.places: list[str] = []
        self.hurried: list[tuple[float, int]] = []  # the same, of urgent ones
        self.due_asked = 0

    async def next_due_seconds(self) -> float | None:
        self.due_asked += 1
        return await super().next_due_seconds()

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        place = terms.get("place", "oldest")
        if place == "urgent":
            self.hurried.append((now(), limit))
        else:
            self.asked.append((now(), limit))
            self.places.append(place)
        await asyncio.sleep(self.takes_seconds)
        return await super().claim(limit, **terms)


class Desk:
    """A reader, and the works that it has submitted."""

    def __init__(self, queue: _Claims, *, batch_size: int = 10, most: int = 15, most_bytes: int = 1_000_000) -> None:
        self.queue, self.flow = queue, flow()
        self.leases, tallies, self.logger = leases_on(queue, lease_seconds=3_600.0, most=most, most_bytes=most_bytes)
        self.works: list[Work] = []
        self.returned: list[tuple[str, float]] = []
        self._settling: list[asyncio.Task[list[Settlement]]] = []
        bound: Any = self.logger
        self.reader = Reader(
            queue,
            self.flow,
            self.leases,
            bound,
            submit=self.works.append,
            submit_urgent=self.works.append,
            waiting=lambda: 0,
            slots=8,
            give_back=self._give_back,
            look_for_pause=self._look,
            tallies=tallies,
            clock=now,
            owner="test",
            batch_size=batch_size,
            lease_seconds=3_600.0,
            confirmed_seconds=60.0,
        )

    async def _look(self) -> None:
        pass

    def _give_back(self, work: Work, delay_seconds: float) -> None:
        self.returned.append((work.claim.completion_id, delay_seconds))
        self.leases.drop([work.claim])
        self._settling.append(
            asyncio.create_task(self.queue.settle([Settlement(work.claim, delay_seconds=delay_seconds)]))
        )

    async def settle(self, count: int) -> None:
        claims = [work.claim for work in self.leases.works[:count]]
        await self.queue.settle([Settlement(claim, [each.number for each in claim.changes]) for claim in claims])
        self.leases.drop(claims)

    async def probe(self, ended: Ended) -> None:
        """An applier's part in a probe."""
        (work,) = (each for each in self.works if each.is_probe)
        (await self.flow.admit(work.claim.completion_id, "update", probe=True)).end(ended)
        work.is_probe = False
        self.flow.probe_ended()


async def desk_with(count: int, **sizes: int) -> Desk:
    return Desk(_Claims(await queue_with(ids(count))), **sizes)


@in_virtual_time
async def test_the_reader_holds_at_most_one_batch_beyond_its_limit() -> None:
    desk = await desk_with(100)
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(60.0)
        assert [limit for _, limit in desk.queue.asked] == [10, 10]
        assert set(desk.queue.places) == {"oldest"}
        assert len(desk.works) == len(desk.leases) == 20  # of more than 15, no further batch is claimed
        await desk.settle(5)
        await asyncio.sleep(1.0)
        assert len(desk.works) == 30


@in_virtual_time
async def test_the_reader_keeps_to_its_bytes_if_a_batch_is_as_large_as_the_last() -> None:
    desk = await desk_with(100, most=1_000, most_bytes=15 * (sys.getsizeof('{"grade":"A"}') + BYTES_OF_A_CHANGE))
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(60.0)
        assert len(desk.works) == len(desk.leases) == 10
        await desk.settle(5)
        await asyncio.sleep(1.0)
        assert len(desk.works) == 20


@in_virtual_time
async def test_a_lease_counts_from_before_the_claim() -> None:
    desk = await desk_with(1)
    desk.queue.takes_seconds = 4.0
    await asyncio.sleep(100.0)
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(5.0)
    assert [(work.claimed_at, work.deadline) for work in desk.works] == [(100.0, 3_700.0)]


@in_virtual_time
async def test_a_drain_ends_when_nothing_is_left_and_no_claim_is_held() -> None:
    desk = await desk_with(3)
    draining = asyncio.create_task(desk.reader.run(drain=True))
    await asyncio.sleep(60.0)
    assert not draining.done()
    await desk.settle(3)
    await asyncio.wait_for(draining, 2.0)


@in_virtual_time
async def test_an_idle_daemon_polls_once_a_second_and_finds_its_own_puts_at_once() -> None:
    desk = await desk_with(0)
    with running(desk.reader.run(drain=False)):
        await asyncio.sleep(600.0)
        assert desk.queue.due_asked == pytest.approx(600, abs=10)
        assert len(desk.queue.asked) == 1  # at the start
        await desk.queue.put([MetadataChange("chatcmpl-1", {"grade": "A"})])
        at = now()
        await asyncio.sleep(0.001)
        assert desk.queue.asked[-2][0] == at
        assert len(desk.works) == 1


@in_virtual_time
async def test_a_reader_knows_when_what_a_dead_worker_holds_is_due() -> None:
    desk = await desk_with(3)
    await desk.queue.claim(3, lease_seconds=300.0, owner="dead", confirmed_seconds=60.0)
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(100.0)
        assert desk.reader.due_in_seconds() == pytest.approx(200.0, abs=0.1)
        await asyncio.sleep(201.0)
        assert len(desk.works) == 3
        assert desk.reader.due_in_seconds() is None


@in_virtual_time
async def test_a_halted_reader_claims_one_for_each_probe_and_resumes_with_the_first_success() -> None:
    desk = await desk_with(100)
    halt(desk.flow, "unauthorized")
    refused = Ended(End.FAILED, "unauthorized")
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(0.001)
        assert [limit for _, limit in desk.queue.asked] == [1]  # the first probe is due at once
        await asyncio.sleep(60.0)
        assert [limit for _, limit in desk.queue.asked] == [1]  # while it is under way
        await desk.probe(refused)
        await asyncio.sleep(4.9)
        assert [limit for _, limit in desk.queue.asked] == [1]
        await asyncio.sleep(0.2)
        assert [limit for _, limit in desk.queue.asked] == [1, 1]
        await desk.probe(SUCCEEDED)
        await asyncio.sleep(0.1)
        assert [limit for _, limit in desk.queue.asked] == [1, 1, 10, 10]


@in_virtual_time
async def test_probes_look_at_the_oldest_the_newest_and_the_middle_in_turn() -> None:
    desk = await desk_with(100)
    halt(desk.flow)
    with running(desk.reader.run(drain=True)):
        for _ in range(6):
            await asyncio.sleep(10.1)
            await desk.probe(FAILED)
    assert desk.queue.places == ["oldest", "newest", "middle"] * 2
    assert [int(work.claim.completion_id[-6:]) for work in desk.works] == [0, 99, 50, 1, 98, 50 - 1]


@in_virtual_time
@pytest.mark.parametrize(("fresh", "passed_over"), [(0, []), (4, [0, 8]), (8, [0])], ids=["oldest", "middle", "newest"])
async def test_a_probe_is_a_completion_that_has_not_failed(fresh: int, passed_over: list[int]) -> None:
    desk = await desk_with(9)
    await _fail(desk, [each for number, each in enumerate(ids(9)) if number != fresh])
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(11.0)
        assert [work.claim.completion_id for work in desk.works if work.is_probe] == [ids(9)[fresh]]
        assert desk.returned == [(ids(9)[number], 0.0) for number in passed_over]
        await desk.probe(SUCCEEDED)
        assert desk.flow.gate.is_open


@in_virtual_time
async def test_if_all_completions_failed_a_probe_is_one_of_them() -> None:
    desk = await desk_with(9)
    await _fail(desk, ids(9))
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(11.0)
        assert [work.claim.completion_id for work in desk.works if work.is_probe] == [ids(9)[0]]
        assert len(desk.leases) == 1  # no claim is held besides the probe


async def _fail(desk: Desk, completion_ids: list[str]) -> None:
    """Halt by these completions."""
    for completion_id in completion_ids[:5]:
        end(desk.flow, FAILED, completion_id=completion_id)
    for completion_id in completion_ids[5:]:
        await asyncio.sleep(desk.flow.next_probe_in_seconds())
        assert desk.flow.take_probe(completion_id)
        (await desk.flow.admit(completion_id, "update", probe=True)).end(FAILED)


@in_virtual_time
async def test_a_newcomer_is_the_probe_at_once_and_failed_completions_go_back() -> None:
    desk = await desk_with(2)
    for completion_id in ids(2):
        end(desk.flow, FAILED, completion_id=completion_id)
    desk.flow.nothing_else([])
    with running(desk.reader.run(drain=False)):
        await asyncio.sleep(0.001)
        await desk.probe(FAILED)
        await asyncio.sleep(0.01)
        returned, away_seconds = desk.returned[-1]  # the other has failed too, and the next probe is due in a second
        assert returned == ids(2)[1]
        assert 0.9 < away_seconds <= 1.0
        asked = len(desk.queue.asked)
        await asyncio.sleep(0.5)
        assert len(desk.queue.asked) - asked < 10
        await desk.queue.put([MetadataChange("newcomer", {"grade": "A"})])
        await asyncio.sleep(0.001)
        assert [work.claim.completion_id for work in desk.works if work.is_probe] == ["newcomer"]
        await desk.probe(SUCCEEDED)
        assert desk.flow.gate.is_open


@in_virtual_time
async def test_the_worker_halts_when_all_held_claims_failed_and_none_is_due() -> None:
    desk = await desk_with(3)
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(1.0)
        for completion_id in ids(3)[:2]:
            end(desk.flow, FAILED, completion_id=completion_id)
        await asyncio.sleep(5.0)
        assert desk.flow.gate.is_open  # a held one may yet get through
        end(desk.flow, FAILED, completion_id=ids(3)[2])
        await asyncio.sleep(2.0)
        assert not desk.flow.gate.is_open


@in_virtual_time
async def test_while_all_meet_the_same_refusal_the_reader_claims_one_at_a_time() -> None:
    desk = await desk_with(100)
    for number in range(20):
        end(desk.flow, Ended(End.ABSENT), completion_id=f"other-{number}")
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(1.0)
        assert {limit for _, limit in desk.queue.asked} == {1}
        assert not any(work.is_probe for work in desk.works)


@in_virtual_time
async def test_the_reader_claims_nothing_during_a_long_retry_after() -> None:
    desk = await desk_with(100)
    end(desk.flow, Ended(End.THROTTLED, delay_seconds=60.0))
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(54.0)
        assert not desk.works
        await asyncio.sleep(2.0)  # a wait of five seconds is short enough for claims to be held
        assert desk.works


@in_virtual_time
@pytest.mark.parametrize("operation", ["claim", "next_due_seconds"])
async def test_a_store_that_is_away_is_asked_less_and_less_often_and_logged(operation: str) -> None:
    desk = await desk_with(0)
    desk.queue.unavailable.add(operation)
    with running(desk.reader.run(drain=False)):
        await asyncio.sleep(600.0)
        assert desk.queue.refused == len(events(desk.logger, "store.unavailable")) == pytest.approx(125, abs=5)
        desk.queue.unavailable.clear()
        await desk.queue.put([MetadataChange("chatcmpl-1", {"grade": "A"})])
        await asyncio.sleep(6.0)
        assert len(desk.works) == 1


@in_virtual_time
async def test_a_cancelled_reader_has_handed_on_all_its_claims() -> None:
    desk = await desk_with(100)
    with running(desk.reader.run(drain=True)):
        await asyncio.sleep(1.0)
    assert len(desk.works) == len(desk.leases) == (await desk.queue.status()).in_flight


class _Held(_Claims):
    """A queue with one due target, which another transaction has locked: a producer's, for example."""

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        return await super().claim(min(limit, 0), **terms)

    async def next_due_seconds(self) -> float | None:
        return -1.0


@in_virtual_time
async def test_a_due_target_that_another_transaction_locks_is_polled_seldom() -> None:
    queue = _Held(await queue_with(ids(1)))
    with running(Desk(queue).reader.run(drain=False)):
        await asyncio.sleep(20.0)

    assert len(queue.asked) <= 25
