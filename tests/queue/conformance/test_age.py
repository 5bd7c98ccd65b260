"""Dead letters by age, on every backend."""

from collections.abc import Sequence

import pytest

from tests.queue.conformance.backends import Advance
from tests.queue.helpers import bury, change, letters
from worker.queue import DeadSelection, Store

DAY = 86_400.0


async def _ids(queue: Store, selection: DeadSelection = DeadSelection()) -> list[str]:  # noqa: B008 -- it is frozen
    return [letter.completion_id for letter in await letters(queue, selection)]


async def _bury_one_a_day(queue: Store, advance: Advance, days: int) -> None:
    """When this returns, the first letter is so many days old, less one."""
    for day in range(days):
        if day:
            await advance(DAY)
        await bury(queue, change(f"c-{day}"))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (DeadSelection(older_than_seconds=2.5 * DAY), ["c-0", "c-1"]),
        (DeadSelection(within_seconds=1.5 * DAY), ["c-3", "c-4"]),
        (DeadSelection(older_than_seconds=0.5 * DAY, within_seconds=2.5 * DAY), ["c-2", "c-3"]),
        (DeadSelection(completion_id="c-1", older_than_seconds=2.5 * DAY), ["c-1"]),
        (DeadSelection(completion_id="c-4", older_than_seconds=2.5 * DAY), []),
        (DeadSelection(reason="rejected", within_seconds=0.5 * DAY), ["c-4"]),
        (DeadSelection(reason="not_found", within_seconds=0.5 * DAY), []),
        (DeadSelection(older_than_seconds=1e300), []),
        (DeadSelection(within_seconds=1e300), ["c-0", "c-1", "c-2", "c-3", "c-4"]),
    ],
)
async def test_letters_are_read_and_purged_by_their_age(
    queue: Store, advance: Advance, selection: DeadSelection, expected: Sequence[str]
) -> None:
    await _bury_one_a_day(queue, advance, 5)

    assert await _ids(queue, selection) == expected
    assert await queue.purge_dead(selection) == len(expected)
    assert await _ids(queue) == [f"c-{day}" for day in range(5) if f"c-{day}" not in expected]


async def test_letters_by_number_and_age_match_both(queue: Store, advance: Advance) -> None:
    await _bury_one_a_day(queue, advance, 3)
    numbers = [letter.number for letter in await letters(queue)]

    assert await _ids(queue, DeadSelection(numbers[1:], older_than_seconds=0.5 * DAY)) == ["c-1"]


async def test_letters_are_sent_back_that_died_since(queue: Store, advance: Advance) -> None:
    await _bury_one_a_day(queue, advance, 4)

    revived = await queue.retry_dead(DeadSelection(within_seconds=1.5 * DAY))

    assert (revived.retried, revived.kept) == (2, 0)
    assert await _ids(queue) == ["c-0", "c-1"]
    assert {claim.completion_id for claim in await queue.claim(9, lease_seconds=60, owner="o")} == {"c-2", "c-3"}


async def test_letters_that_are_too_old_expire_and_no_more_at_once_than_was_said(
    queue: Store, advance: Advance
) -> None:
    await bury(queue, *[change(f"c-{number}") for number in range(7)])
    await advance(30 * DAY)
    await bury(queue, change("young"))
    await advance(1.0)

    assert await queue.expire_dead(30 * DAY, most=3) == 3
    assert await _ids(queue) == [*(f"c-{number}" for number in range(3, 7)), "young"]
    assert await queue.expire_dead(30 * DAY, most=100) == 4
    assert await queue.expire_dead(30 * DAY, most=100) == 0
    assert await _ids(queue) == ["young"]
    assert set(await queue.dead_reasons()) == {"rejected"}


async def test_of_many_letters_those_of_an_age_are_found_wherever_they_are(queue: Store, advance: Advance) -> None:
    """More than a page, of which most match nothing."""
    for age in ("old", "new"):
        await advance(DAY)
        for start in range(0, 600, 100):
            await bury(queue, *[change(f"{age}-{number}") for number in range(start, start + 100)])

    young = DeadSelection(within_seconds=0.5 * DAY)
    assert await _ids(queue, young) == [f"new-{number}" for number in range(600)]
    assert await queue.purge_dead(young) == 600
    assert len(await letters(queue)) == 600
