"""The leases by worker, with their times."""

from dataclasses import astuple

import pytest

from tests.queue.conformance.backends import START, Advance, Backend
from tests.queue.helpers import LEASE_SECONDS, about, change, changes, claim, failed, finished
from worker.queue import LONGEST_SECONDS, Place, Settlement, Store


async def holders(queue: Store) -> list[tuple[object, ...]]:
    """The lease holders, in a form that can be compared with approximate times."""
    return [astuple(holder) for holder in await queue.leases()]


async def hold(queue: Store, owner: str, limit: int, *, place: Place = "oldest") -> list[str]:
    claims = await queue.claim(limit, lease_seconds=60, owner=owner, place=place)
    return [each.completion_id for each in claims]


async def test_there_are_no_leases_at_first(queue: Store) -> None:
    await queue.put([change("c-1")])

    assert await queue.leases() == []


async def test_each_worker_is_told_with_what_it_holds(queue: Store, advance: Advance) -> None:
    await queue.put([*changes("c-1", "ab"), *changes("c-2", "abc"), change("c-3"), change("c-4"), change("c-5")])
    assert len(await hold(queue, "one", 2)) == 2
    await advance(10)
    assert len(await hold(queue, "zwei:ü b", 1)) == 1
    await advance(5)
    assert len(await hold(queue, "one", 1, place="newest")) == 1

    assert await holders(queue) == [
        ("one", 3, 6, about(START), about(START + 75)),
        ("zwei:ü b", 1, 1, about(START + 10), about(START + 70)),
    ]


async def test_what_is_settled_extended_or_has_run_out_is_told_as_it_is(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2"), change("c-3")])
    done, late, kept = await claim(queue)
    await queue.settle([finished(done), failed(late)])
    await advance(40)
    await queue.extend([kept], lease_seconds=60)

    assert await holders(queue) == [("worker", 1, 1, about(START), about(START + 100))]
    await advance(60.9)
    assert await queue.leases() == []
    assert await hold(queue, "another", 1) == ["c-2"]
    assert [holder.owner for holder in await queue.leases()] == ["another"]


async def test_more_leases_than_a_page_are_counted_each_once(backend: Backend) -> None:
    await backend.queue.put([change(f"c-{number}") for number in range(2_300)])
    await hold(backend.queue, "one", 1_200)
    async with backend.another() as other:
        await hold(other, "two", 1_100)

        counts = {holder.owner: (holder.completions, holder.changes) for holder in await other.leases()}
    assert counts == {"one": (1_200, 1_200), "two": (1_100, 1_100)}


async def test_no_lease_and_no_delay_is_longer_than_an_hour(queue: Store) -> None:
    await queue.put([change("c-1")])
    with pytest.raises(ValueError, match="at most 3600 seconds"):
        await queue.claim(1, lease_seconds=LONGEST_SECONDS + 1, owner="one")
    [claimed] = await queue.claim(1, lease_seconds=LONGEST_SECONDS, owner="one")
    with pytest.raises(ValueError, match="at most 3600 seconds"):
        await queue.extend([claimed], lease_seconds=LONGEST_SECONDS + 1)
    with pytest.raises(ValueError, match="at most 3600 seconds"):
        await queue.settle([Settlement(claimed, delay_seconds=LONGEST_SECONDS + 1)])
    assert await queue.settle([Settlement(claimed, delay_seconds=LONGEST_SECONDS)]) == []


async def test_a_lease_that_its_worker_holds_outlives_the_loss_of_a_later_claim(backend: Backend) -> None:
    """As where a replica takes over that missed the last claim: the request for the first may be under way."""
    queue = backend.queue
    await queue.put([change("c-1"), change("c-2")])
    [held] = await claim(queue, 1)
    put_back = await backend.save()
    [lost] = await claim(queue, 1)
    await put_back()
    await backend.advance(1)

    assert [each.completion_id for each in await claim(queue)] == [lost.completion_id]
    assert await queue.extend([held, lost], lease_seconds=LEASE_SECONDS) == [lost]
    assert await queue.settle([finished(held)]) == []
