"""Counts and dead letters, on every backend."""

from typing import Any

import pytest

from tests.queue.conformance.backends import Advance
from tests.queue.helpers import (
    EVERY_LETTER,
    LEASE_SECONDS,
    about,
    bury,
    change,
    changes,
    claim,
    claim_one,
    died,
    finished,
    labels,
    letters,
    pending_labels,
)
from worker.queue import DeadSelection, QueueStatus, Revived, Settlement, Store
from worker.queue.memory import MemoryQueue

MANY = 999  # more than a page, no more than a claim


async def test_an_empty_queue_counts_nothing(queue: Store) -> None:
    assert await queue.status() == QueueStatus(0, 0, 0, 0, None, 0.0)


async def test_pending_counts_every_change_that_is_not_done(queue: Store, advance: Advance) -> None:
    await queue.put([*changes("c-1", range(3)), *changes("c-2", range(2)), change("c-3")])
    await advance(7)
    waits, works, done = sorted(await claim(queue), key=lambda claimed: claimed.completion_id)
    await queue.settle([Settlement(waits, delay_seconds=30), finished(done)])
    await queue.put([*changes("c-2", range(5)), change("c-4")])
    await bury(queue, change("c-5"))

    status = await queue.status()

    assert (status.pending, status.in_flight, status.waiting, status.dead) == (10, 7, 3, 2)
    assert status.oldest_pending_seconds == about(7)
    assert len(works.changes) == 2  # and five more came meanwhile


async def test_a_lease_or_a_delay_that_ran_out_is_just_pending(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, _ = await claim(queue)
    await queue.settle([Settlement(first, delay_seconds=LEASE_SECONDS)])
    await advance(LEASE_SECONDS)

    status = await queue.status()

    assert (status.pending, status.in_flight, status.waiting) == (2, 0, 0)


async def test_an_extended_lease_is_in_flight(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    await advance(LEASE_SECONDS)
    await queue.extend([claimed], lease_seconds=LEASE_SECONDS)

    assert (await queue.status()).in_flight == 1


async def test_the_rate_is_of_all_that_was_done_in_the_last_five_minutes(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2"), change("c-3"), change("c-4")])
    first, second, third, fourth = await claim(queue)
    [number] = [each.number for each in second.changes]
    await queue.settle([finished(first), Settlement(second, unchanged=[number]), died(third), Settlement(fourth)])
    # Done changes are counted by minute: five minutes are the current one and the four before.
    assert 3 / 300 <= (await queue.status()).recent_per_second <= 3 / 240
    await advance(180)
    assert 3 / 300 <= (await queue.status()).recent_per_second <= 3 / 240
    await advance(180)
    assert (await queue.status()).recent_per_second == 0


async def test_letters_are_read_completely_and_oldest_first_for_any_number(queue: Store) -> None:
    await bury(queue, *changes("c-1", range(MANY)))

    found = await letters(queue)

    assert [letter.metadata for letter in found] == [f'{{"label":"{i}"}}' for i in range(MANY)]
    assert [letter.number for letter in found] == sorted({letter.number for letter in found})


async def _bury_some(queue: Store) -> None:
    await bury(queue, change("c-1", "a"), change("c-2", "b"), reason="rejected")
    await bury(queue, change("c-1", "c"), change("c-2", "d"), reason="not_found")


def _selections(numbers: list[int]) -> list[tuple[DeadSelection, str]]:
    """Each way to select, and the labels of the selected letters."""
    a, b, _, d = numbers
    return [
        (DeadSelection(), "abcd"),
        (DeadSelection(numbers=[]), ""),
        (DeadSelection(numbers=[d, a, a]), "ad"),
        (DeadSelection(numbers=[10**9, -1, 2**70]), ""),
        (DeadSelection(numbers=[a, b, d], completion_id="c-2"), "bd"),
        (DeadSelection(numbers=[a, b, d], reason="not_found"), "d"),
        (DeadSelection(numbers=[a, b, d], completion_id="c-2", reason="rejected"), "b"),
        (DeadSelection(completion_id="c-1"), "ac"),
        (DeadSelection(completion_id="c-1", reason="not_found"), "c"),
        (DeadSelection(reason="rejected"), "ab"),
        (DeadSelection(completion_id="c-9"), ""),
        (DeadSelection(reason="invalid"), ""),
        (DeadSelection(reason="' OR 1"), ""),
    ]


SELECTIONS = range(len(_selections([1, 2, 3, 4])))


async def _selected(queue: Store, which: int) -> tuple[DeadSelection, list[str]]:
    await _bury_some(queue)
    letters_by_label = {letter.metadata[10]: letter.number for letter in await letters(queue)}
    selection, wanted = _selections([letters_by_label[label] for label in "abcd"])[which]
    return selection, list(wanted)


async def _dead_labels(queue: Store, selection: DeadSelection = EVERY_LETTER) -> list[str]:
    return sorted(letter.metadata[10] for letter in await letters(queue, selection))


@pytest.mark.parametrize("which", SELECTIONS)
async def test_letters_are_selected_by_all_that_is_given(queue: Store, which: int) -> None:
    selection, wanted = await _selected(queue, which)

    assert await _dead_labels(queue, selection) == wanted


@pytest.mark.parametrize("which", SELECTIONS)
async def test_selected_letters_are_purged_for_good(queue: Store, which: int) -> None:
    selection, wanted = await _selected(queue, which)

    assert await queue.purge_dead(selection) == len(wanted)
    assert await _dead_labels(queue) == [label for label in "abcd" if label not in wanted]
    assert await queue.purge_dead(selection) == 0
    assert (await queue.status()).pending == 0


@pytest.mark.parametrize("which", SELECTIONS)
async def test_selected_letters_are_made_pending_again(queue: Store, which: int) -> None:
    selection, wanted = await _selected(queue, which)

    assert await queue.retry_dead(selection) == Revived(len(wanted), 0)
    assert await _dead_labels(queue) == [label for label in "abcd" if label not in wanted]
    assert (await queue.status()).pending == len(wanted)
    assert sorted(label for found in (await pending_labels(queue)).values() for label in found) == wanted


@pytest.mark.parametrize("conditions", [{}, {"reason": "rejected"}, {"completion_id": "c-1"}, {"numbers": [1, 2, 3]}])
async def test_letters_that_came_after_the_look_are_left_alone(queue: Store, conditions: dict[str, Any]) -> None:
    await bury(queue, *changes("c-1", range(3)))
    shown = DeadSelection(**conditions, until=2)
    assert [letter.number async for letter in queue.dead_letters(shown)] == [1, 2]
    assert await queue.purge_dead(DeadSelection(**conditions, until=1)) == 1
    assert await queue.retry_dead(shown) == Revived(retried=1, kept=0)
    assert await queue.retry_dead(shown) == Revived(retried=0, kept=0)
    assert [letter.number for letter in await letters(queue)] == [3]
    assert await queue.purge_dead(DeadSelection(until=0)) == 0
    assert await queue.purge_dead(DeadSelection(until=2**80)) == 1


async def test_a_retried_change_is_the_newest_of_its_completion_without_trials(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-2", "dead")])
    claimed = await claim_one(queue)
    await queue.settle([Settlement(claimed, trials=[(claimed.changes[0].number, "failed")])])
    await bury(queue, change("c-1", "dead", change_id="line-1"))
    await advance(100)
    await queue.put([change("c-1", "meanwhile")])

    await queue.retry_dead(EVERY_LETTER)
    claims = {claimed.completion_id: claimed for claimed in await claim(queue)}

    assert labels(claims["c-1"]) == ["meanwhile", "dead"]
    assert claims["c-1"].changes[1].change_id == "line-1"
    assert claims["c-2"].changes[0].trials is None
    assert claims["c-2"].age_seconds == about(0)


async def test_retried_changes_keep_the_order_of_the_letters(queue: Store) -> None:
    await bury(queue, *changes("c-1", range(MANY)))

    assert await queue.retry_dead(EVERY_LETTER) == Revived(MANY, 0)
    assert labels(await claim_one(queue)) == [str(i) for i in range(MANY)]


async def test_a_change_may_be_retried_while_its_completion_is_claimed(queue: Store) -> None:
    await bury(queue, change("c-1", "dead"))
    await queue.put([change("c-1", "claimed")])
    claimed = await claim_one(queue)

    await queue.retry_dead(EVERY_LETTER)
    assert await claim(queue) == []
    await queue.settle([finished(claimed)])

    assert labels(await claim_one(queue)) == ["dead"]


async def test_a_letter_whose_change_id_is_pending_again_is_kept(queue: Store) -> None:
    await bury(queue, change("c-1", "dead", change_id="line-1"), change("c-2", "dead"))
    await queue.put([change("c-1", "again", change_id="line-1")])

    assert await queue.retry_dead(EVERY_LETTER) == Revived(retried=1, kept=1)
    assert [letter.completion_id for letter in await letters(queue)] == ["c-1"]
    assert await pending_labels(queue) == {"c-1": ["again"], "c-2": ["dead"]}


async def test_of_letters_with_one_change_id_the_first_is_retried(queue: Store) -> None:
    for label in ("first", "second"):
        await bury(queue, change("c-1", label, change_id="line-1"))

    assert await queue.retry_dead(EVERY_LETTER) == Revived(retried=1, kept=1)
    assert await pending_labels(queue) == {"c-1": ["first"]}
    assert [letter.metadata for letter in await letters(queue)] == ['{"label":"second"}']


async def test_a_purged_change_id_may_come_again(queue: Store) -> None:
    await bury(queue, change("c-1", change_id="line-1"))
    await queue.purge_dead(EVERY_LETTER)

    assert (await queue.put([change("c-1", change_id="line-1")])).added == 1


async def test_a_dead_change_id_is_not_pending(queue: Store) -> None:
    await bury(queue, change("c-1", change_id="line-1"))

    assert (await queue.put([change("c-1", change_id="line-1")])).added == 1


async def test_letters_may_go_while_they_are_read(queue: Store) -> None:
    await bury(queue, *changes("c-1", range(MANY)))
    read = 0
    async for letter in queue.dead_letters(EVERY_LETTER):
        await queue.purge_dead(DeadSelection(numbers=[letter.number]))
        read += 1
        if read == 5:
            await queue.purge_dead(EVERY_LETTER)

    assert read >= 5
    assert await letters(queue) == []


async def test_letters_are_dealt_with_piece_by_piece_until_it_is_not_to_go_on(queue: Store) -> None:
    many = 2_500  # more than any store's piece, twice
    await queue.put([change(f"c-{number}") for number in range(many)])
    while claims := await claim(queue, 5_000):
        await queue.settle([died(each) for each in claims])

    purged = await queue.purge_dead(EVERY_LETTER, go_on=lambda _: False)
    revived = await queue.retry_dead(EVERY_LETTER, go_on=lambda _: False)

    status = await queue.status()
    assert (status.pending, status.dead) == (revived.retried, many - purged - revived.retried)
    if not isinstance(queue, MemoryQueue):
        assert 0 < purged <= 1_000  # of the largest, as many as a slow disk writes within a store's time-out
        assert 0 < revived.retried <= 1_000
        assert status.dead
    assert await queue.purge_dead(EVERY_LETTER) == status.dead


async def test_ten_thousand_letters_are_pending_again_in_one_call_and_in_order(queue: Store) -> None:
    completions = [f"c-{i}" for i in range(10)]
    await bury(queue, *(each for name in completions for each in changes(name, range(MANY + 1))))

    assert await queue.retry_dead(EVERY_LETTER) == Revived(10_000, 0)
    assert await pending_labels(queue) == {name: [str(i) for i in range(MANY + 1)] for name in completions}
    assert await letters(queue) == []
