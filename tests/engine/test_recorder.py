"""Outcomes become durable in batches, and are counted and logged then, not before."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine.parts import events, leases_on, now, queue_with, running
from tests.engine.virtual import ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.engine.outcome import Deferral, Outcome
from worker.engine.recorder import Recorder
from worker.engine.results import ResultsLost
from worker.engine.trials import Trials
from worker.engine.work import Work
from worker.queue import Settlement, Store


class _Batches(WrappedQueue):
    """Keeps the time and the size of each batch."""

    def __init__(self, queue: Store) -> None:
        super().__init__(queue)
        self.settled: list[tuple[float, int]] = []

    async def settle(self, settlements: Sequence[Settlement], **terms: Any) -> list[Settlement]:
        self.settled.append((now(), len(settlements)))
        return await super().settle(settlements, **terms)


class Desk:
    """A recorder, and the claims held that it settles."""

    def __init__(self, queue: _Batches, *, batch_size: int, results: "_Results | None" = None) -> None:
        self.queue = queue
        self.leases, self.tallies, self.logger = leases_on(queue)
        bound: Any = self.logger
        self.lost: list[str] = []
        self.recorder = Recorder(
            queue,
            self.leases,
            self.tallies,
            bound,
            batch_size=batch_size,
            log_values=False,
            keep_seconds=60.0,
            results=results,
            on_results_lost=self.lost.append,
        )

    async def claim(self, count: int) -> list[Work]:
        return self.leases.take(await self.queue.claim(count, lease_seconds=30.0, owner="test"), now())

    def applied(self, works: Sequence[Work]) -> None:
        for work in works:
            self.recorder.put(Outcome(work.claim, applied=work.claim.changes))


class _Results:
    """Keeps how many outcomes were written, and how many settlements the queue had seen by then.

    Args:
        room: for so many outcomes.
    """

    def __init__(self, queue: _Batches, room: int) -> None:
        self._queue = queue
        self._room = room
        self.written: list[tuple[int, int]] = []

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        await asyncio.sleep(0.5)  # a slow disk
        self._room -= len(outcomes)
        if self._room < 0:
            raise ResultsLost("no room")
        self.written.append((len(outcomes), sum(size for _, size in self._queue.settled)))


async def desk_with(count: int, *, batch_size: int = 10) -> Desk:
    return Desk(_Batches(await queue_with(ids(count))), batch_size=batch_size)


@in_virtual_time
async def test_a_full_batch_is_stored_at_once_and_the_rest_soon() -> None:
    desk = await desk_with(26)
    works = await desk.claim(26)
    with running(desk.recorder.run()):
        desk.applied(works[:25])
        await asyncio.sleep(1.0)
    assert [size for _, size in desk.queue.settled] == [10, 10, 5]
    assert [at for at, _ in desk.queue.settled][:2] == [0.0, 0.0]
    assert 0.0 < desk.queue.settled[2][0] <= 0.05
    assert (desk.tallies.outcomes["applied", ""], len(desk.leases)) == (25, 1)


@pytest.mark.parametrize("claimed", [1, 3, 25])
@in_virtual_time
async def test_the_outcomes_of_all_that_is_held_are_stored_at_once(claimed: int) -> None:
    desk = await desk_with(claimed)
    works = await desk.claim(claimed)
    with running(desk.recorder.run()):
        for work in works:
            desk.applied([work])
        await asyncio.sleep(0.0001)
        assert desk.tallies.outcomes["applied", ""] == claimed
        assert await desk.queue.next_due_seconds() is None
    assert sum(size for _, size in desk.queue.settled) == claimed


@in_virtual_time
async def test_what_is_given_back_is_not_claimed_again_at_once() -> None:
    desk = await desk_with(1)
    (work,) = await desk.claim(1)
    with running(desk.recorder.run()):
        desk.recorder.put(Outcome(work.claim, deferred=work.claim.changes, deferral=Deferral.RELEASED))
        await asyncio.sleep(0.03)
        assert not desk.queue.settled
        await asyncio.sleep(0.03)
        assert len(desk.queue.settled) == 1


@in_virtual_time
async def test_a_stale_outcome_is_neither_logged_nor_counted() -> None:
    desk = await desk_with(2)
    works = await desk.claim(2)
    await asyncio.sleep(31.0)  # the leases ran out, and another worker took one of them
    await desk.queue.claim(1, lease_seconds=30.0, owner="another")
    with running(desk.recorder.run()):
        desk.applied(works)
        await asyncio.sleep(1.0)
    (stale, kept) = (work.claim.completion_id for work in works)
    assert [event["completion_id"] for event in events(desk.logger, "change.applied")] == [kept]
    assert desk.tallies.outcomes == {("applied", ""): 1}
    assert [recorded.completion_id for recorded in desk.tallies.latest] == [kept]
    assert (desk.tallies.stale, len(desk.leases)) == (1, 0)
    assert stale in {claim.completion_id for claim in await _claimed_later(desk)}


async def _claimed_later(desk: Desk) -> list[Any]:
    await asyncio.sleep(31.0)
    return await desk.queue.claim(2, lease_seconds=30.0, owner="another")


@in_virtual_time
async def test_a_settlement_is_repeated_until_the_store_is_back_and_counted_once() -> None:
    desk = await desk_with(1)
    works = await desk.claim(1)
    desk.queue.unavailable.add("settle")
    with running(desk.recorder.run()):
        desk.applied(works)
        await asyncio.sleep(20.0)
        assert (desk.tallies.outcomes.total(), len(desk.leases)) == (0, 1)  # not durable, so not done
        desk.queue.unavailable.clear()
        await asyncio.sleep(6.0)
    assert (desk.tallies.outcomes.total(), len(desk.leases)) == (1, 0)
    assert len(events(desk.logger, "change.applied")) == 1
    assert desk.tallies.store_errors["settle"] == desk.queue.refused < 12  # asked less and less often


@in_virtual_time
async def test_a_deferred_change_is_due_after_its_delay_with_its_record() -> None:
    desk = await desk_with(1)
    (work,) = await desk.claim(1)
    with running(desk.recorder.run()):
        changes = work.claim.changes
        met = [(changes[0].number, Trials(failures=3).text())]
        desk.recorder.put(
            Outcome(work.claim, deferred=changes, deferral=Deferral.RETRY, delay_seconds=40.0, trials=met)
        )
        await asyncio.sleep(39.0)
        assert not await desk.claim(1)
        await asyncio.sleep(2.0)
        (again,) = await desk.claim(1)
    assert again.trials == {changes[0].number: Trials(failures=3)}
    assert desk.tallies.outcomes["retry", ""] == len(changes)


@in_virtual_time
async def test_a_claim_that_is_not_recorded_at_the_end_stays_leased() -> None:
    desk = await desk_with(1)
    works = await desk.claim(1)
    with running(desk.recorder.run()):
        await asyncio.sleep(0.0)
        desk.applied(works)
    await asyncio.sleep(1.0)
    assert (desk.queue.settled, len(desk.leases)) == ([], 1)


@in_virtual_time
async def test_results_are_written_before_their_outcomes_are_settled() -> None:
    queue = _Batches(await queue_with(ids(25)))
    results = _Results(queue, room=100)
    desk = Desk(queue, batch_size=10, results=results)
    works = await desk.claim(25)
    with running(desk.recorder.run()):
        desk.applied(works)
        await asyncio.sleep(5.0)
    assert results.written == [(10, 0), (10, 10), (5, 20)]
    assert (desk.tallies.outcomes["applied", ""], desk.lost) == (25, [])


@in_virtual_time
async def test_once_results_cannot_be_written_everything_is_given_back_and_nothing_is_lost() -> None:
    queue = _Batches(await queue_with(ids(25)))
    results = _Results(queue, room=15)
    desk = Desk(queue, batch_size=10, results=results)
    works = await desk.claim(25)
    with running(desk.recorder.run()):
        desk.applied(works)
        await asyncio.sleep(5.0)
    assert (results.written, desk.lost) == ([(10, 0)], ["no room"])  # told once, and not tried again
    assert desk.tallies.outcomes == {("applied", ""): 10, ("released", ""): 15}
    assert len(desk.leases) == 0
    assert len(await desk.claim(25)) == 15  # due at once
