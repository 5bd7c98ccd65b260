"""Records of finished changes, their `change_id` and the newest `as_of`, on every backend."""

from collections.abc import Sequence

import pytest

from tests.queue.conformance.backends import Advance, Backend
from tests.queue.helpers import change, claim, claim_one, died, finished, letters, numbers
from worker.changes import MetadataChange
from worker.queue import DeadSelection, PendingSelection, Revived, Settlement, Store

DAY = 86_400.0


def _dated(completion_id: str, as_of: float | None, change_id: str | None = None) -> MetadataChange:
    return MetadataChange(completion_id, {"label": "x"}, change_id=change_id, as_of=as_of)


async def _apply(queue: Store, *changes: MetadataChange, remember: bool = True) -> None:
    await queue.put(changes)
    assert await queue.settle([finished(each) for each in await claim(queue)], remember=remember) == []


async def _newest(queue: Store, changes: Sequence[MetadataChange]) -> dict[str, float | None]:
    await queue.put(changes)
    return {each.completion_id: each.newest_as_of for each in await claim(queue)}


async def test_a_change_carries_its_as_of_through_claims_and_letters(queue: Store) -> None:
    times = [0.0, 1_700_000_000.125, 9_999_999_999.0, None]
    await queue.put([_dated("c-1", as_of) for as_of in times])

    claimed = await claim_one(queue)
    assert [each.as_of for each in claimed.changes] == times
    assert claimed.newest_as_of is None
    assert [each.as_of async for each in queue.pending_changes()] == times
    await queue.settle([died(claimed)])
    assert [letter.as_of for letter in await letters(queue)] == times
    await queue.retry_dead(DeadSelection())
    assert [each.as_of for each in (await claim_one(queue)).changes] == times


async def test_the_newest_as_of_that_was_applied_is_told_to_changes_that_have_one(queue: Store) -> None:
    await _apply(queue, _dated("c-1", 100.0), _dated("c-1", 300.5), _dated("c-2", 200.0))
    await _apply(queue, _dated("c-1", 200.0))  # an older one that was applied nevertheless

    assert await _newest(queue, [_dated("c-1", 250.0), _dated("c-2", None), _dated("c-3", 1.0)]) == {
        "c-1": 300.5,
        "c-2": None,
        "c-3": None,
    }


async def test_changes_without_one_leave_nothing(queue: Store) -> None:
    await _apply(queue, change("c-1"))

    assert await _newest(queue, [_dated("c-1", 5.0)]) == {"c-1": None}
    assert await queue.forget(0.0, most=100) == 0


async def test_what_died_waits_or_is_superseded_is_no_newest(queue: Store) -> None:
    await queue.put([_dated("c-1", 300.0), _dated("c-2", 300.0), _dated("c-3", 300.0), _dated("c-3", 100.0)])
    dead, waiting, mixed = await claim(queue)
    newer, older = numbers(mixed)
    await queue.settle(
        [
            died(dead),
            Settlement(waiting),
            Settlement(mixed, unchanged=[older], superseded=[newer]),
        ],
        remember=True,
    )

    assert await _newest(queue, [_dated("c-1", 1.0), _dated("c-3", 1.0)]) == {"c-1": None, "c-2": None, "c-3": 100.0}


async def test_what_is_known_already_is_told_apart_by_whether_and_where_it_is_pending(queue: Store) -> None:
    def changes(what: str, count: int) -> list[MetadataChange]:
        return [change(f"c-{what}-{i}", change_id=f"{what}-{i}") for i in range(count)]

    applied, alone = changes("applied", 3), changes("alone", 2)
    spring, autumn = changes("spring", 600), changes("autumn", 1)
    await _apply(queue, *applied)
    await queue.put(alone)
    await queue.put(spring, batch="spring")
    await queue.put(autumn, batch="autumn")
    corrected = [change(each.completion_id, "another", change_id=each.change_id) for each in applied]
    other = [change(each.completion_id, "another", change_id=each.change_id) for each in spring[:2]]
    new = changes("new", 2)

    stored = await queue.put([*new, *corrected, *alone, *other, *new, *spring, *autumn, *new], batch="spring")

    assert (stored.added, stored.duplicates, stored.conflicts) == (2, 3 + 2 + 600 + 1 + 4, (7, 8))
    assert stored.pending_in == {None: 2, "spring": 600 + 4, "autumn": 1}
    assert stored.applied_before == 3
    assert (await queue.put([*corrected, *new])).pending_in == {"spring": 2}
    assert (await queue.put(corrected)).pending_in == {}


@pytest.mark.parametrize("seconds", [1e10, 1e16, 1e300])
async def test_what_is_to_be_kept_for_longer_than_a_store_counts_is_kept(queue: Store, seconds: float) -> None:
    await queue.put(_dated("c-1", 300.0, "mine"), batch="b")
    await queue.settle([finished(await claim_one(queue))], remember=True)

    assert await queue.forget(seconds, most=100) == 0
    assert (await queue.put(_dated("c-1", 1.0, "mine"))).applied_before == 1
    assert [each.name for each in await queue.batches()] == ["b"]


async def test_nothing_is_remembered_unless_it_is_asked_for(queue: Store) -> None:
    await _apply(queue, _dated("c-1", 300.0, "mine"), remember=False)

    assert (await queue.put(_dated("c-1", 1.0, "mine"))).added == 1
    assert (await claim_one(queue)).newest_as_of is None


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_a_change_id_that_was_applied_is_a_duplicate_with_any_content(queue: Store, size: int) -> None:
    await _apply(queue, *[change(f"c-{number}", change_id=f"id-{number}") for number in range(size)])
    again = [change(f"c-{number}", "other", change_id=f"id-{number}") for number in range(size)]

    stored = await queue.put([*again, change("c-new", change_id="new"), change("c-new")])

    assert (stored.added, stored.duplicates, stored.conflicts) == (2, size, ())
    assert await queue.conflicts(again) == ()
    assert (await queue.status()).pending == 2
    assert [each.completion_id for each in await claim(queue)] == ["c-new"]


@pytest.mark.parametrize("ending", ["unchanged", "superseded"])
async def test_so_is_one_that_was_done_without_being_sent(queue: Store, ending: str) -> None:
    await queue.put(change("c-1", change_id="mine"))
    claimed = await claim_one(queue)
    done = numbers(claimed)
    settlement = Settlement(claimed, unchanged=done) if ending == "unchanged" else Settlement(claimed, superseded=done)
    await queue.settle([settlement], remember=True)

    assert (await queue.put(change("c-1", change_id="mine"))).duplicates == 1


async def test_a_change_id_of_what_died_or_was_withdrawn_may_come_again(queue: Store) -> None:
    await queue.put([change("c-1", change_id="dead"), change("c-2", change_id="withdrawn")])
    await queue.withdraw(PendingSelection(change_id="withdrawn"))
    await queue.settle([died(await claim_one(queue))], remember=True)

    stored = await queue.put([change("c-1", change_id="dead"), change("c-2", change_id="withdrawn")])

    assert (stored.added, stored.duplicates) == (2, 0)


async def test_stale_settlements_are_not_remembered(queue: Store, advance: Advance) -> None:
    await queue.put(_dated("c-1", 300.0, "mine"))
    late = await claim_one(queue)
    await advance(100)
    current = await claim_one(queue)
    assert await queue.settle([finished(late)], remember=True) == [finished(late)]
    await queue.settle([died(current)], remember=True)

    assert (await queue.put(_dated("c-1", 1.0, "mine"))).added == 1
    assert (await claim_one(queue)).newest_as_of is None


async def test_letters_are_passed_over_whose_completion_has_had_a_newer_one(queue: Store) -> None:
    await queue.put([_dated("c-1", 100.0), _dated("c-2", 100.0), _dated("c-3", 400.0), _dated("c-4", None)])
    await queue.settle([died(each) for each in await claim(queue)])
    await _apply(queue, _dated("c-1", 300.0), _dated("c-3", 300.0), _dated("c-4", 300.0))
    old = next(letter.number for letter in await letters(queue) if letter.completion_id == "c-1")

    assert await queue.retry_dead(DeadSelection()) == Revived(3, 0, 1, (old,))

    assert [letter.number for letter in await letters(queue)] == [old]
    assert {each.completion_id for each in await claim(queue)} == {"c-2", "c-3", "c-4"}


async def test_of_many_letters_that_are_passed_over_the_first_hundred_are_named(queue: Store) -> None:
    await queue.put([_dated("c-1", float(number)) for number in range(1, 301)])
    await queue.settle([died(await claim_one(queue))])
    await _apply(queue, _dated("c-1", 1_000.0))
    numbers_of_all = [letter.number for letter in await letters(queue)]

    assert await queue.retry_dead(DeadSelection()) == Revived(0, 0, 300, tuple(numbers_of_all[:100]))


async def test_a_letter_whose_change_id_was_applied_since_stays(queue: Store) -> None:
    await queue.put(change("c-1", "old", change_id="mine"))
    await queue.settle([died(await claim_one(queue))])
    await _apply(queue, change("c-1", "new", change_id="mine"))

    assert await queue.retry_dead(DeadSelection()) == Revived(0, 1)
    assert await claim(queue) == []


async def test_what_is_remembered_goes_by_age_a_little_at_a_time(queue: Store, advance: Advance) -> None:
    await _apply(queue, *[_dated(f"c-{number}", 300.0, f"id-{number}") for number in range(7)])
    await advance(10 * DAY)
    await _apply(queue, _dated("c-young", 300.0, "young"), _dated("c-6", 400.0))

    assert await queue.forget(20 * DAY, most=100) == 0
    gone = [await queue.forget(7 * DAY, most=3) for _ in range(12)]

    assert (sum(gone), gone[-1]) == (13, 0)  # seven change_ids, and six completions: c-6 has had a newer one since
    assert max(gone) <= 6
    stored = await queue.put([_dated(f"c-{number}", 1.0, f"id-{number}") for number in range(7)])
    assert stored.added == 7
    assert (await queue.put(_dated("c-young", 1.0, "young"))).duplicates == 1
    assert {each.completion_id: each.newest_as_of for each in await claim(queue)} == {
        **{f"c-{number}": None for number in range(6)},
        "c-6": 400.0,
    }


async def test_all_workers_remember_the_same(backend: Backend) -> None:
    await _apply(backend.queue, _dated("c-1", 300.0, "mine"))

    async with backend.another() as other:
        assert (await other.put(_dated("c-1", 1.0, "mine"))).duplicates == 1
        assert await _newest(other, [_dated("c-1", 1.0, "another")]) == {"c-1": 300.0}
