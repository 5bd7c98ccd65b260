"""Reading pending changes changes nothing."""

from tests.queue.helpers import change, changes, claim, finished
from worker.queue import QueuedChange, Store

MANY = 1_201  # more than any store's page


async def _pending(queue: Store) -> list[QueuedChange]:
    return [each async for each in queue.pending_changes()]


async def test_an_empty_queue_has_nothing_pending(queue: Store) -> None:
    assert await _pending(queue) == []


async def test_all_that_is_pending_is_read_each_completions_together_and_in_its_order(queue: Store) -> None:
    await queue.put([change(f"c-{number % 400}", str(number)) for number in range(MANY)])
    await queue.put(changes("c-many", range(MANY)))

    found = await _pending(queue)

    by_completion: dict[str, list[QueuedChange]] = {}
    for each in found:
        by_completion.setdefault(each.completion_id, []).append(each)
    runs = [
        each
        for each, before in zip(found, [None, *found], strict=False)
        if before is None or before.completion_id != each.completion_id
    ]
    assert len(runs) == len(by_completion) == 401
    assert len({each.number for each in found}) == len(found) == 2 * MANY
    assert [each.number for each in by_completion["c-many"]] == sorted(each.number for each in by_completion["c-many"])
    assert [each.metadata for each in by_completion["c-many"]] == [f'{{"label":"{label}"}}' for label in range(MANY)]


async def test_what_is_leased_is_read_too_and_its_lease_stays(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2", change_id="mine")])
    claims = await claim(queue)

    assert {(each.completion_id, each.change_id) for each in await _pending(queue)} == {("c-1", None), ("c-2", "mine")}

    assert await queue.settle([finished(each) for each in claims]) == []
    assert await _pending(queue) == []
