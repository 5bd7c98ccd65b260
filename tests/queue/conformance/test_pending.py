"""Reading pending changes changes nothing."""

import tracemalloc
from collections.abc import AsyncIterator

from tests.queue.helpers import EVERY_LETTER, change, changes, claim, died, finished
from worker.changes import MetadataChange
from worker.queue import PendingSelection, QueuedChange, Store

MANY = 1_201  # more than any store's page
MANY_LARGE = 2_400
LARGEST = {f"key-{number:02d}": "\N{GRINNING FACE}" * 512 for number in range(16)}


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


async def test_large_entries_are_read_in_little_memory(queue: Store) -> None:
    for first in range(0, MANY_LARGE, 200):
        await queue.put([MetadataChange(f"c-{number}", LARGEST) for number in range(first, first + 200)], batch="large")
    read = [await _read(queue.pending_changes()), await _read(queue.pending_changes(PendingSelection("large")))]
    while claims := await claim(queue):
        await queue.settle([died(each) for each in claims])
    read.append(await _read(queue.dead_letters(EVERY_LETTER)))

    assert [count for count, _ in read] == [MANY_LARGE] * 3
    assert max(peak_bytes for _, peak_bytes in read) < 60_000_000, read  # all are 80 MB, and more on their way


async def _read(entries: AsyncIterator[object]) -> tuple[int, int]:
    """Return how many there are, and the most bytes that were held meanwhile."""
    tracemalloc.start()
    try:
        return len([None async for _ in entries]), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
