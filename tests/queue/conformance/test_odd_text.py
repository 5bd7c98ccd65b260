"""Text with half surrogate pairs or NUL, which some stores cannot hold, on every backend."""

import pytest

from tests.queue.helpers import bury, change, changes, claim, died, letters, numbers
from worker.queue import DeadSelection, Death, Revived, Settlement, Store

ODD = ["a\0b", "a\ud800b", "\udfff"]


@pytest.mark.parametrize("odd", ODD)
async def test_a_note_of_odd_text_is_kept_and_removed_under_its_name(queue: Store, odd: str) -> None:
    await queue.write_note(odd, f"is {odd}")
    [(name, note)] = (await queue.read_notes()).items()
    assert note.text.startswith("is ")
    assert name.encode()
    await queue.write_note(odd, None)

    assert await queue.read_notes() == {}


@pytest.mark.parametrize("odd", ODD)
async def test_a_worker_of_an_odd_name_claims_like_any_other(queue: Store, odd: str) -> None:
    await queue.put([change("c-1")])

    assert len(await queue.claim(1, lease_seconds=60, owner=odd)) == 1


@pytest.mark.parametrize("odd", ODD)
async def test_no_letter_matches_odd_text_and_all_others_stay(queue: Store, odd: str) -> None:
    await bury(queue, change("c-1"))
    for selection in (DeadSelection(completion_id=odd), DeadSelection(reason=odd), DeadSelection([1], odd, odd)):
        assert await letters(queue, selection) == []
        assert await queue.retry_dead(selection) == Revived(0, 0)
        assert await queue.purge_dead(selection) == 0

    assert len(await letters(queue)) == 1


@pytest.mark.parametrize("odd", ODD)
async def test_what_a_service_said_in_odd_text_is_kept_with_the_letter(queue: Store, odd: str) -> None:
    await queue.put([change("c-1")])
    [claimed] = await claim(queue)
    death = Death(numbers(claimed)[0], "rejected", 1, error=f"said {odd}", request_id=odd)
    assert await queue.settle([Settlement(claimed, dead=[death])]) == []

    [letter] = await letters(queue)
    assert letter.error is not None
    assert letter.error.startswith("said ")


async def test_claims_keep_the_order_of_one_put(queue: Store) -> None:
    given = [f"c-{i * 7_919 % 1_200}" for i in range(1_200)]
    await queue.put([change(completion_id) for completion_id in given])

    claimed = [each.completion_id for _ in range(3) for each in await claim(queue, 500)]
    assert claimed == given


async def test_letters_that_are_retried_keep_their_order_in_claims(queue: Store) -> None:
    given = [f"c-{i * 37 % 100}" for i in range(100)]
    await queue.put([each for completion_id in given for each in changes(completion_id, "ab")])
    assert await queue.settle([died(claimed) for claimed in await claim(queue)]) == []
    order = list(dict.fromkeys([letter.completion_id for letter in await letters(queue)]))
    await queue.retry_dead(DeadSelection())

    assert [each.completion_id for each in await claim(queue)] == order
