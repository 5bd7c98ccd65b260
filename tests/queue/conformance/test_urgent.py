"""Urgent changes, on every backend."""

import pytest

from tests.queue.conformance.backends import Advance
from tests.queue.helpers import LEASE_SECONDS, change, claim, claim_one, died, failed, finished, labels, numbers
from worker.queue import DeadSelection, PendingSelection, Place, Settlement, Store


async def _claim_at(queue: Store, place: Place, limit: int = 100) -> list[str]:
    claims = await queue.claim(limit, lease_seconds=LEASE_SECONDS, owner="worker", place=place)
    return [each.completion_id for each in claims]


@pytest.mark.parametrize("waiting", [0, 1, 3, 50])
async def test_an_urgent_target_is_claimed_apart_with_any_backlog(queue: Store, waiting: int) -> None:
    await queue.put([change(f"c-{number}") for number in range(waiting)])
    await queue.put([change("u-1"), change("u-2")], urgent=True)

    assert await _claim_at(queue, "urgent", 1) == ["u-1"]
    assert await _claim_at(queue, "urgent") == ["u-2"]
    assert await _claim_at(queue, "urgent") == []
    assert await _claim_at(queue, "oldest") == [f"c-{number}" for number in range(waiting)]


@pytest.mark.parametrize("place", ["oldest", "middle", "newest"])
async def test_the_other_places_leave_the_urgent_alone(queue: Store, place: Place) -> None:
    await queue.put([change("u-1"), change("u-2"), change("u-3")], urgent=True)

    assert await _claim_at(queue, place) == []
    await queue.put(change("c-1"))
    await queue.put(change("u-4"), urgent=True)
    assert await _claim_at(queue, place) == ["c-1"]
    assert await queue.next_due_seconds() <= 0  # type: ignore[operator]
    assert await _claim_at(queue, "urgent") == ["u-1", "u-2", "u-3", "u-4"]


async def test_what_was_pending_before_goes_along_in_order(queue: Store) -> None:
    await queue.put([change("c-1", "1"), change("c-1", "2"), change("c-2")])
    await queue.put(change("c-1", "3"), urgent=True)
    await queue.put(change("c-1", "4"))

    [claimed] = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")

    assert labels(claimed) == ["1", "2", "3", "4"]


async def test_a_completion_is_urgent_for_as_long_as_it_has_an_urgent_change(queue: Store, advance: Advance) -> None:
    await queue.put(change("c-1", "usual"))
    await queue.put(change("c-1", "urgent"), urgent=True)
    [claimed] = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
    usual, urgent = numbers(claimed)
    await queue.settle([Settlement(claimed, applied=[usual])])
    [claimed] = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
    await queue.put(change("c-1", "later"))
    await queue.settle([Settlement(claimed, applied=[urgent])])

    assert await _claim_at(queue, "urgent") == []
    claimed = await claim_one(queue)
    assert labels(claimed) == ["later"]
    await queue.put(change("c-1", "urgent again"), urgent=True)
    await queue.settle([failed(claimed)])
    assert await _claim_at(queue, "urgent") == []  # it waits for its next try
    await advance(10)
    assert await _claim_at(queue, "oldest") == []
    assert await _claim_at(queue, "urgent") == ["c-1"]


async def test_withdrawing_the_urgent_change_leaves_a_usual_completion(queue: Store) -> None:
    await queue.put([change("c-1", "usual"), change("c-2", "usual")])
    await queue.put([change("c-1", "urgent"), change("u-1")], batch="b", urgent=True)

    await queue.withdraw(PendingSelection(batch="b"))

    assert await _claim_at(queue, "urgent") == []
    assert await _claim_at(queue, "oldest") == ["c-1", "c-2"]


async def test_a_letter_that_is_sent_back_is_usual(queue: Store) -> None:
    await queue.put(change("u-1"), urgent=True)
    [claimed] = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")
    await queue.settle([died(claimed)])

    await queue.retry_dead(DeadSelection())

    assert await _claim_at(queue, "urgent") == []
    assert await _claim_at(queue, "oldest") == ["u-1"]


async def test_an_urgent_duplicate_hurries_nothing(queue: Store) -> None:
    await queue.put(change("c-1", change_id="mine"))

    stored = await queue.put(change("c-1", change_id="mine"), urgent=True)

    assert stored.duplicates == 1
    assert await _claim_at(queue, "urgent") == []


async def test_status_and_leases_count_the_urgent_too(queue: Store) -> None:
    await queue.put([change("u-1"), change("u-2")], urgent=True)
    await queue.put(change("c-1"))
    [claimed] = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent")

    status = await queue.status()

    assert (status.pending, status.in_flight) == (3, 1)
    assert [(holder.completions, holder.changes) for holder in await queue.leases()] == [(1, 1)]
    await queue.settle([finished(claimed)])
    await queue.settle([failed(each) for each in await claim(queue)])
    assert (await queue.status()).waiting == 1
