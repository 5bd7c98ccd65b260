"""Batches on every backend: their names, their counts, and how long they are kept."""

import pytest

from tests.queue.conformance.backends import START, Advance, Backend
from tests.queue.helpers import EVERY_LETTER, about, change, claim, claim_one, died, finished, letters, numbers
from worker.changes import InvalidChange
from worker.queue import Batch, DeadSelection, Death, Reason, Settlement, Store

DAY = 86_400.0


async def _batch(queue: Store, name: str) -> Batch:
    [found] = await queue.batches(name)
    return found


def _counts(batch: Batch) -> dict[str, int]:
    names = ("changes", "pending", "applied", "unchanged", "superseded", "dead", "withdrawn")
    return {name: getattr(batch, name) for name in names if getattr(batch, name)}


async def test_without_a_name_there_is_no_batch(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")])

    assert await queue.batches() == []
    assert await queue.batches("none") == []
    assert [each.batch for claimed in await claim(queue) for each in claimed.changes] == [None, None]


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_a_batch_is_known_by_its_name_and_its_changes_carry_it(queue: Store, size: int) -> None:
    await queue.put([change(f"c-{number}") for number in range(size)], batch="labels-1")

    batch = await _batch(queue, "labels-1")
    assert _counts(batch) == {"changes": size, "pending": size}
    assert batch.created_at == about(START)
    assert (batch.first_done_at, batch.rate_per_second, batch.seconds_left) == (None, None, None)
    assert {each.batch async for each in queue.pending_changes()} == {"labels-1"}
    assert {each.batch for claimed in await claim(queue) for each in claimed.changes} == {"labels-1"}


async def test_two_batches_and_none_share_a_completion_and_are_counted_apart(queue: Store, advance: Advance) -> None:
    await queue.put(change("c-1", "a"), batch="first")
    await queue.put(change("c-1", "b"))
    await advance(10)
    await queue.put([change("c-1", "c"), change("c-1", "d"), change("c-1", "e")], batch="second")
    claimed = await claim_one(queue)
    assert [each.batch for each in claimed.changes] == ["first", None, "second", "second", "second"]

    one, two, three, four, five = numbers(claimed)
    await advance(10)
    death = Death(four, "rejected", attempts=1)
    await queue.settle([Settlement(claimed, applied=[two, three], unchanged=[one], dead=[death])])

    assert [batch.name for batch in await queue.batches()] == ["second", "first"]
    first, second = await _batch(queue, "first"), await _batch(queue, "second")
    assert _counts(first) == {"changes": 1, "unchanged": 1}
    assert _counts(second) == {"changes": 3, "pending": 1, "applied": 1, "dead": 1}
    assert second.created_at == about(START + 10)
    assert second.first_done_at == second.last_done_at == about(START + 20)
    assert [letter.batch for letter in await letters(queue)] == ["second"]
    assert numbers(await claim_one(queue)) == [five]


async def test_a_batch_may_grow_and_its_rate_is_told(queue: Store, advance: Advance) -> None:
    await queue.put([change(f"c-{number}") for number in range(6)], batch="b")
    for _ in range(2):
        claimed = await claim(queue, 2)
        await queue.settle([finished(each) for each in claimed])
        await advance(4)
    await queue.put(change("c-9"), batch="b")

    batch = await _batch(queue, "b")

    assert _counts(batch) == {"changes": 7, "pending": 3, "applied": 4}
    assert batch.rate_per_second == pytest.approx(1.0, rel=0.3)
    assert batch.seconds_left == pytest.approx(3.0, rel=0.3)


async def test_duplicates_are_not_counted_but_the_batch_is_there(queue: Store) -> None:
    await queue.put(change("c-1", change_id="mine"))

    stored = await queue.put(change("c-1", change_id="mine"), batch="again")

    assert (stored.added, stored.duplicates) == (0, 1)
    batch = await _batch(queue, "again")
    assert (_counts(batch), batch.seconds_left) == ({}, 0.0)


async def test_changes_that_are_superseded_are_counted(queue: Store) -> None:
    await queue.put([change("c-1", "a"), change("c-1", "b")], batch="b")
    claimed = await claim_one(queue)
    first, second = numbers(claimed)

    assert await queue.settle([Settlement(claimed, applied=[first], superseded=[second])]) == []

    assert _counts(await _batch(queue, "b")) == {"changes": 2, "applied": 1, "superseded": 1}
    assert (await queue.history(1))[-1].superseded == 1
    assert (await queue.status()).pending == 0
    assert await claim(queue) == []


async def test_stale_settlements_are_not_counted(queue: Store, advance: Advance) -> None:
    await queue.put(change("c-1"), batch="b")
    old = await claim_one(queue)
    await advance(100)
    new = await claim_one(queue)

    assert await queue.settle([finished(old)]) == [finished(old)]
    assert _counts(await _batch(queue, "b")) == {"changes": 1, "pending": 1}
    assert await queue.settle([finished(new), finished(new)]) == [finished(new)]
    assert _counts(await _batch(queue, "b")) == {"changes": 1, "applied": 1}


async def test_what_dies_is_found_by_its_batch_and_is_pending_again_when_it_is_sent_back(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")], batch="b")
    await queue.put(change("c-3"), batch="other")
    await queue.put(change("c-4"))
    await queue.settle([died(each) for each in await claim(queue)])
    selection = DeadSelection(batch="b")

    assert [letter.completion_id for letter in await letters(queue, selection)] == ["c-1", "c-2"]
    assert await letters(queue, DeadSelection(batch="none")) == []
    assert await letters(queue, DeadSelection(batch="b", completion_id="c-3")) == []
    assert _counts(await _batch(queue, "b")) == {"changes": 2, "dead": 2}

    assert (await queue.retry_dead(DeadSelection(batch="b", completion_id="c-1"))).retried == 1
    assert _counts(await _batch(queue, "b")) == {"changes": 2, "pending": 1, "dead": 1}
    assert [(each.completion_id, each.changes[0].batch) for each in await claim(queue)] == [("c-1", "b")]
    assert await queue.purge_dead(DeadSelection(batch="b")) == 1
    assert {letter.completion_id for letter in await letters(queue)} == {"c-3", "c-4"}
    assert _counts(await _batch(queue, "b")) == {"changes": 2, "pending": 1, "dead": 1}


async def test_letters_of_a_batch_are_selected_by_their_reason_too(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")], batch="b")
    await queue.put(change("c-3"), batch="other")
    reasons: dict[str, Reason] = {"c-1": "rejected", "c-2": "not_found", "c-3": "rejected"}
    await queue.settle([died(each, reasons[each.completion_id]) for each in await claim(queue)])
    selection = DeadSelection(batch="b", reason="rejected")

    assert [letter.completion_id for letter in await letters(queue, selection)] == ["c-1"]
    assert await queue.purge_dead(selection) == 1
    assert [letter.completion_id for letter in await letters(queue)] == ["c-2", "c-3"]


async def test_a_large_batch_is_one_though_it_comes_in_pieces(queue: Store) -> None:
    size = 5_003
    await queue.put((change(f"c-{number}") for number in range(size)), batch="large")

    assert _counts(await _batch(queue, "large")) == {"changes": size, "pending": size}


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "a\n", "é", "x" * 129, "a\0", "a\N{LINE SEPARATOR}b"])
async def test_what_cannot_be_a_name_is_refused_and_nothing_is_stored(queue: Store, name: str) -> None:
    with pytest.raises(InvalidChange, match="no name of a batch"):
        await queue.put(change("c-1"), batch=name)

    assert (await queue.status()).pending == 0
    assert await queue.batches() == []


async def test_another_worker_knows_the_batches(backend: Backend) -> None:
    await backend.queue.put(change("c-1"), batch="b")

    async with backend.another() as other:
        assert [batch.name for batch in await other.batches()] == ["b"]
        await other.put(change("c-2"), batch="b")
        assert {each.batch for claimed in await claim(other) for each in claimed.changes} == {"b"}
    assert _counts(await _batch(backend.queue, "b")) == {"changes": 2, "pending": 2}


async def test_finished_batches_are_let_go_of_by_their_age_and_others_stay(queue: Store, advance: Advance) -> None:
    for name in ("first", "second", "third"):
        await queue.put(change(f"c-{name}"), batch=name)
        await queue.settle([finished(await claim_one(queue))])
        await advance(DAY)
    await queue.put(change("c-pending"), batch="pending")
    await advance(30 * DAY)
    await queue.put(change("c-young"), batch="young")
    await queue.settle([finished(each) for each in await claim(queue) if each.completion_id == "c-young"])

    assert await queue.forget(40 * DAY, most=100) == 0
    assert await queue.forget(7 * DAY, most=2) == 2
    assert [batch.name for batch in await queue.batches()] == ["young", "pending", "third"]
    assert await queue.forget(7 * DAY, most=2) == 1
    assert await queue.forget(7 * DAY, most=2) == 0
    assert [batch.name for batch in await queue.batches()] == ["young", "pending"]


async def test_a_batch_that_was_let_go_of_comes_back_with_its_letters(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")], batch="b")
    await queue.settle([died(each) for each in await claim(queue)])
    await advance(30 * DAY)
    assert await queue.forget(7 * DAY, most=100) == 1

    assert (await queue.retry_dead(EVERY_LETTER)).retried == 2

    assert _counts(await _batch(queue, "b")) == {"changes": 2, "pending": 2}
    assert {each.batch for claimed in await claim(queue) for each in claimed.changes} == {"b"}
