"""The pool of appliers: so many at work, and others in the place of parked ones."""

import asyncio

from tests.engine.parts import claim_of, running, work_on
from tests.virtual import in_virtual_time
from worker.engine.pool import ApplierPool
from worker.engine.work import Interruption, Work


class Hands:
    """A pool whose works take ten seconds each; a parked work waits all ten."""

    def __init__(self, size: int) -> None:
        self.pool = ApplierPool(size, self._handle)
        self.at_work: list[int] = []
        self.done: list[int] = []
        self.most = 0
        self.parked: set[int] = set()

    def submit(self, *leases: int) -> list[Work]:
        works = [work_on(claim_of("{}", lease=lease)) for lease in leases]
        for work in works:
            self.pool.submit(work)
        return works

    async def _handle(self, work: Work) -> None:
        lease = work.claim.lease
        try:
            if lease in self.parked:
                with self.pool.parked():
                    await asyncio.sleep(10.0)
            self.at_work.append(lease)
            self.most = max(self.most, len(self.at_work))
            await asyncio.sleep(10.0)
            self.done.append(lease)
        except asyncio.CancelledError:
            if not work.was_interrupted():
                raise
        finally:
            if lease in self.at_work:
                self.at_work.remove(lease)


@in_virtual_time
async def test_no_more_tasks_work_than_the_size_of_the_pool_and_every_work_is_done() -> None:
    hands = Hands(2)
    with running(hands.pool.run()):
        hands.submit(1, 2, 3, 4, 5)
        await asyncio.sleep(29.0)
        assert (hands.done, hands.at_work, hands.most) == ([1, 2, 3, 4], [5], 2)
        await asyncio.sleep(2.0)
        hands.submit(6)  # to a task that is idle
        await asyncio.sleep(11.0)
        assert hands.done == [1, 2, 3, 4, 5, 6]


@in_virtual_time
async def test_a_parked_task_leaves_its_place_to_another() -> None:
    hands = Hands(1)
    hands.parked = {1}
    with running(hands.pool.run()):
        hands.submit(1, 2)
        await asyncio.sleep(1.0)
        assert hands.at_work == [2]


@in_virtual_time
async def test_after_parked_tasks_come_back_no_more_than_the_size_take_new_work() -> None:
    hands = Hands(1)
    hands.parked = {1, 2, 3}
    with running(hands.pool.run()):
        hands.submit(1, 2, 3, 4, 5, 6, 7)
        await asyncio.sleep(15.0)
        assert (hands.done, hands.at_work) == ([4], [1, 2, 3])  # what had begun goes on
        await asyncio.sleep(10.0)
        assert hands.at_work == [5]
        await asyncio.sleep(60.0)
        assert sorted(hands.done) == [1, 2, 3, 4, 5, 6, 7]


@in_virtual_time
async def test_works_that_are_taken_back_are_never_begun() -> None:
    hands = Hands(1)
    with running(hands.pool.run()):
        hands.submit(1, 2, 3)
        await asyncio.sleep(1.0)
        assert [work.claim.lease for work in hands.pool.take_back()] == [2, 3]
        await asyncio.sleep(60.0)
        assert hands.done == [1]


@in_virtual_time
async def test_an_interruption_ends_one_work_and_not_the_task_that_did_it() -> None:
    hands = Hands(1)
    with running(hands.pool.run()):
        first, second = hands.submit(1, 2)
        await asyncio.sleep(1.0)
        first.interrupt(Interruption.RELEASED)
        await asyncio.sleep(11.0)
        assert hands.done == [second.claim.lease]


@in_virtual_time
async def test_an_interruption_that_comes_too_late_does_not_hit_the_next_work() -> None:
    hands = Hands(1)
    with running(hands.pool.run()):
        first, second = hands.submit(1, 2)
        await asyncio.sleep(11.0)
        first.interrupt(Interruption.LEASE_LOST)
        await asyncio.sleep(10.0)
        assert hands.done == [first.claim.lease, second.claim.lease]


@in_virtual_time
async def test_works_submitted_before_the_pool_runs_are_begun_when_it_runs() -> None:
    hands = Hands(2)
    hands.submit(1, 2, 3)
    await asyncio.sleep(1.0)
    assert not hands.at_work
    with running(hands.pool.run()):
        await asyncio.sleep(1.0)
        assert hands.at_work == [1, 2]
