"""Withdrawn changes, on every backend."""

import asyncio

import pytest

from tests.queue.conformance.backends import Advance, Backend
from tests.queue.helpers import LEASE_SECONDS, change, changes, claim, claim_one, failed, finished, labels, numbers
from worker.queue import PendingSelection, Store, Withdrawn
from worker.queue.memory import MemoryQueue

MANY = 1_201  # more than any store's page


async def _withdrawn_of(queue: Store, name: str) -> int:
    [batch] = await queue.batches(name)
    return batch.withdrawn


@pytest.mark.parametrize("size", [1, 3, 50, MANY])
async def test_a_batch_is_withdrawn_and_nothing_else(queue: Store, size: int) -> None:
    await queue.put([change(f"c-{number}", "mine") for number in range(size)])
    await queue.put([change(f"c-{number}", "wrong") for number in range(size)], batch="wrong")
    await queue.put([change(f"d-{number}", "wrong") for number in range(size)], batch="wrong")
    await queue.put([change(f"c-{number}", "later") for number in range(size)], batch="right")

    assert await queue.withdraw(PendingSelection(batch="wrong")) == Withdrawn(2 * size, 0)

    assert (await queue.status()).pending == 2 * size
    assert await _withdrawn_of(queue, "wrong") == 2 * size
    assert await _withdrawn_of(queue, "right") == 0
    assert (await queue.history(1))[-1].withdrawn == 2 * size
    claims = [each for _ in range(20) for each in await claim(queue)]
    assert {tuple(labels(each)) for each in claims} == {("mine", "later")}
    assert len(claims) == size
    assert await queue.settle([finished(each) for each in claims]) == []
    assert await queue.next_due_seconds() is None


async def test_the_middle_of_a_completions_changes_goes_and_the_others_keep_their_order(queue: Store) -> None:
    for label, batch in [("1", "a"), ("2", "b"), ("3", None), ("4", "b"), ("5", "a")]:
        await queue.put(change("c-1", label), batch=batch)

    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(2, 0)

    assert labels(await claim_one(queue)) == ["1", "3", "5"]


async def test_one_completions_changes_are_withdrawn(queue: Store) -> None:
    await queue.put([*changes("c-1", range(3)), change("c-2")])

    assert await queue.withdraw(PendingSelection(completion_id="c-1")) == Withdrawn(3, 0)
    assert await queue.withdraw(PendingSelection(completion_id="c-1")) == Withdrawn(0, 0)

    assert [each.completion_id for each in await claim(queue)] == ["c-2"]


async def test_one_change_is_withdrawn_and_may_be_put_again(queue: Store) -> None:
    await queue.put([change("c-1", "a", change_id="one"), change("c-1", "b", change_id="two")])

    assert await queue.withdraw(PendingSelection(change_id="one")) == Withdrawn(1, 0)

    assert (await queue.put(change("c-1", "c", change_id="one"))).added == 1
    assert labels(await claim_one(queue)) == ["b", "c"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (PendingSelection(batch="b", completion_id="c-1"), 1),
        (PendingSelection(batch="b", completion_id="c-3"), 0),
        (PendingSelection(batch="b", change_id="one"), 1),
        (PendingSelection(completion_id="c-2", change_id="one"), 0),
        (PendingSelection(batch="none"), 0),
        (PendingSelection(completion_id="none"), 0),
        (PendingSelection(change_id="none"), 0),
        (PendingSelection(batch="a\0b", completion_id="\ud800", change_id="\0"), 0),
    ],
)
async def test_only_what_meets_every_condition_is_read_and_withdrawn(
    queue: Store, selection: PendingSelection, expected: int
) -> None:
    await queue.put([change("c-1", change_id="one"), change("c-2", change_id="two")], batch="b")
    await queue.put([change("c-1"), change("c-3", change_id="three")], batch="other")

    assert len([each async for each in queue.pending_changes(selection)]) == expected
    assert await queue.withdraw(selection) == Withdrawn(expected, 0)
    assert (await queue.status()).pending == 4 - expected
    assert [each async for each in queue.pending_changes(selection)] == []


async def test_everything_is_not_withdrawn_by_mistake(queue: Store) -> None:
    await queue.put(change("c-1"))

    with pytest.raises(ValueError, match="say which"):
        await queue.withdraw(PendingSelection())

    assert (await queue.status()).pending == 1


async def test_what_a_worker_has_in_hand_stays_and_is_told(queue: Store) -> None:
    await queue.put(changes("c-1", range(2)), batch="b")
    in_hand = await claim_one(queue)
    await queue.put([change("c-1", "later"), change("c-2")], batch="b")

    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(1, 3)

    assert await queue.extend([in_hand], lease_seconds=LEASE_SECONDS) == []
    assert await queue.settle([finished(in_hand)]) == []
    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(1, 0)
    assert await queue.next_due_seconds() is None
    [batch] = await queue.batches()
    assert (batch.applied, batch.withdrawn, batch.pending) == (2, 2, 0)


async def test_what_waits_for_its_next_try_is_withdrawn(queue: Store, advance: Advance) -> None:
    await queue.put(changes("c-1", ["a", "b"]), batch="b")
    await queue.settle([failed(await claim_one(queue))])

    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(2, 0)

    await advance(100)
    assert await claim(queue) == []
    assert await queue.next_due_seconds() is None


async def test_a_lease_that_ran_out_ends_and_its_worker_is_not_listened_to(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1", "wrong")], batch="b")
    await queue.put([change("c-1", "right")])
    late = await claim_one(queue)
    await advance(LEASE_SECONDS + 10)

    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(1, 0)

    assert await queue.extend([late], lease_seconds=LEASE_SECONDS) == [late]
    assert await queue.settle([finished(late)]) == [finished(late)]
    again = await claim_one(queue)
    assert labels(again) == ["right"]
    assert numbers(again) == numbers(late)[1:]
    [batch] = await queue.batches()
    assert (batch.applied, batch.withdrawn) == (0, 1)


async def test_a_withdrawal_ends_after_a_piece_where_it_is_not_to_go_on_and_the_next_one_goes_on(queue: Store) -> None:
    size = 4_500
    await queue.put([change(f"c-{number}") for number in range(size)], batch="b")
    told: list[Withdrawn] = []

    def stop(so_far: Withdrawn) -> bool:
        told.append(so_far)
        return len(told) < 2

    first = await queue.withdraw(PendingSelection(batch="b"), go_on=stop)

    if not isinstance(queue, MemoryQueue):  # which takes all at once
        assert first == told[-1]
        assert len(told) == 2
        assert told[0].withdrawn < first.withdrawn < size
    assert await _withdrawn_of(queue, "b") == first.withdrawn
    assert (await queue.status()).pending == size - first.withdrawn
    assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(size - first.withdrawn, 0)
    assert await queue.next_due_seconds() is None


async def test_what_is_put_claimed_settled_and_withdrawn_at_once_is_counted_once(backend: Backend) -> None:
    size = 400
    async with backend.another() as worker, backend.another() as producer, backend.another() as person:
        await producer.put([change(f"c-{number}") for number in range(size)], batch="b")

        async def work() -> None:
            for _ in range(40):
                await worker.settle([finished(each) for each in await claim(worker, 5)])

        async def produce() -> None:
            for number in range(40):
                await producer.put(change(f"c-{number}", "again"), batch="b")

        async def withdraw() -> None:
            for number in range(0, size, 10):
                await person.withdraw(PendingSelection(completion_id=f"c-{number}"))
            await person.withdraw(PendingSelection(batch="b"))

        await asyncio.gather(work(), produce(), withdraw())
        await person.withdraw(PendingSelection(batch="b"))

    [batch] = await backend.queue.batches()
    assert batch.changes == size + 40 == batch.applied + batch.withdrawn
    assert batch.pending == (await backend.queue.status()).pending == 0
    assert await backend.queue.next_due_seconds() is None
