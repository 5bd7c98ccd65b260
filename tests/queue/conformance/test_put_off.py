"""A clock that was ahead and is put right puts off no change for years."""

from functools import partial
from pathlib import Path

import pytest

from tests.queue.conformance.backends import BACKENDS
from tests.queue.helpers import LEASE_SECONDS, about, change, claim, claim_one, finished
from worker.queue import Claim, Settlement, Store
from worker.queue.pending import LONGEST_SECONDS

YEAR = 365 * 86_400.0


async def _claim_again(queue: Store) -> list[Claim]:
    """Claim as the engine does: once something is due."""
    due_seconds = await queue.next_due_seconds()
    return await claim(queue) if due_seconds is not None and due_seconds <= 0 else []


@pytest.mark.parametrize("store", ["postgres", "redis", "sqlite"])
@pytest.mark.parametrize("urgent", [False, True])
async def test_what_came_while_the_clock_was_a_year_ahead_is_due_at_once(
    store: str, tmp_path: Path, *, urgent: bool
) -> None:
    async with BACKENDS[store](tmp_path) as backend:
        queue = backend.queue
        await backend.advance(YEAR)
        await queue.put([change("c-1"), change("c-2")], urgent=urgent)
        claim_some = partial(
            queue.claim, lease_seconds=LEASE_SECONDS, owner="worker", place="urgent" if urgent else "oldest"
        )
        [tried] = await claim_some(1)
        await queue.settle([Settlement(tried, delay_seconds=LONGEST_SECONDS)])
        await backend.advance(-YEAR)

        assert await queue.next_due_seconds() == about(0)
        assert {each.completion_id for each in await claim_some(2)} == {"c-1", "c-2"}


@pytest.mark.parametrize("store", ["postgres", "redis"])
async def test_a_lease_from_that_time_holds_until_its_worker_extends_it_or_for_an_hour(
    store: str, tmp_path: Path
) -> None:
    async with BACKENDS[store](tmp_path) as backend:
        queue = backend.queue
        await backend.advance(YEAR)
        await queue.put([change("c-1"), change("c-2")])
        [first, second] = await claim(queue, 2)
        await backend.advance(-YEAR)

        assert await _claim_again(queue) == []
        await backend.advance(LEASE_SECONDS + 1)
        assert await _claim_again(queue) == []
        assert await queue.extend([first], lease_seconds=LEASE_SECONDS) == []
        await backend.advance(LEASE_SECONDS + 1)
        assert [each.completion_id for each in await _claim_again(queue)] == [first.completion_id]
        await backend.advance(LONGEST_SECONDS)
        assert second.completion_id in [each.completion_id for each in await _claim_again(queue)]
        assert await queue.settle([finished(second)]) == [finished(second)]


@pytest.mark.parametrize("store", ["postgres", "redis", "sqlite"])
async def test_a_worker_that_is_never_short_of_work_sees_to_it_with_a_heartbeat(store: str, tmp_path: Path) -> None:
    async with BACKENDS[store](tmp_path) as backend:
        queue = backend.queue
        await backend.advance(YEAR)
        await queue.put([change("c-late")])
        await backend.advance(-YEAR)
        await queue.put([change("c-1"), change("c-2")])
        [held] = await claim(queue, 1)
        assert await queue.extend([held], lease_seconds=LEASE_SECONDS) == []

        assert {each.completion_id for each in await claim(queue, 2)} == {"c-2", "c-late"}


@pytest.mark.parametrize("store", ["postgres", "redis", "sqlite"])
async def test_a_delay_of_an_hour_is_waited_for(store: str, tmp_path: Path) -> None:
    async with BACKENDS[store](tmp_path) as backend:
        queue = backend.queue
        await queue.put([change("c-1")])
        await queue.settle([Settlement(await claim_one(queue), delay_seconds=LONGEST_SECONDS)])

        assert await queue.next_due_seconds() == about(LONGEST_SECONDS)
        assert await claim(queue) == []
        await backend.advance(LONGEST_SECONDS + 1)
        assert await queue.next_due_seconds() == about(-1)
