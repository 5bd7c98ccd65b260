"""The arguments of `put`: one change or many, as objects or mappings, of any iterable, sync or async."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from metasync import InvalidChange, MetadataChange, QueueUnavailable, Stored
from tests.queue.helpers import change, pending_labels
from worker.queue.batch import Terms
from worker.queue.memory import MemoryQueue


class CountingQueue(MemoryQueue):
    """A queue that says in which batches it was given what there is, and may be away for one of them."""

    def __init__(self, *, away_at: int | None = None) -> None:
        super().__init__()
        self.pieces: list[int] = []
        self.away_at = away_at

    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        if len(self.pieces) == self.away_at:
            raise QueueUnavailable("the store is away")
        self.pieces.append(len(changes))
        return await super()._put(changes, terms)


def lines(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"completion_id": f"c-{i}", "metadata": {"label": str(i)}, "change_id": f"line-{i}"}


async def lines_async(count: int) -> AsyncIterator[dict[str, Any]]:
    for each in lines(count):
        yield each


@pytest.mark.parametrize(
    "given",
    [
        {"completion_id": "c-1", "metadata": {"label": "x"}},
        change("c-1"),
        [{"completion_id": "c-1", "metadata": {"label": "x"}, "mode": "merge", "change_id": None}],
        (change("c-1"),),
        {1: change("c-1")}.values(),
        iter([change("c-1")]),
    ],
)
async def test_one_or_many_changes_or_mappings_are_stored(given: Any) -> None:
    queue = MemoryQueue()

    assert await queue.put(given) == Stored(1, 0)
    assert await pending_labels(queue) == {"c-1": ["x"]}


@pytest.mark.parametrize("make", [lines, lines_async])
async def test_an_iterable_is_stored_in_batches_and_conflicts_have_their_positions_in_all(
    make: Callable[[int], Any],
) -> None:
    queue = CountingQueue()
    await queue.put([change("c-1", "other", change_id="line-7"), change("c-1", "other", change_id="line-11999")])
    queue.pieces.clear()

    assert await queue.put(make(12_000)) == Stored(11_998, 0, conflicts=(7, 11_999))
    assert queue.pieces == [5_000, 5_000, 2_000]
    assert await queue.put(make(0)) == Stored(0, 0)


async def test_no_more_is_read_than_a_batch_before_it_is_stored() -> None:
    queue = CountingQueue()
    stored_at = []

    def watched() -> Iterator[dict[str, Any]]:
        for position, line in enumerate(lines(11_000)):
            stored_at.append((position, len(queue.pieces)))
            yield line

    await queue.put(watched())
    assert [stored_at[i][1] for i in (0, 4_999, 5_000, 9_999, 10_000)] == [0, 0, 1, 1, 2]


async def test_a_batch_is_bounded_in_size_too() -> None:
    queue = CountingQueue()
    largest = {str(i): "x" * 512 for i in range(16)}

    await queue.put({"completion_id": f"c-{i}", "metadata": largest} for i in range(2_000))
    assert max(queue.pieces) < 1_000


async def test_a_list_is_stored_whole_or_not_at_all() -> None:
    queue = CountingQueue()

    await queue.put(list(lines(12_000)))
    assert queue.pieces == [12_000]
    with pytest.raises(InvalidChange, match=r"stands|is not one.*\(position 1 of what was put\)") as caught:
        await queue.put([change("c-1"), {"completion_id": "../x", "metadata": {}}])
    assert caught.value.taken == 0
    assert (await queue.status()).pending == 12_000


@pytest.mark.parametrize("make", [lines, lines_async])
async def test_where_a_later_batch_fails_the_error_says_how_many_were_taken(make: Callable[[int], Any]) -> None:
    queue = CountingQueue(away_at=2)

    with pytest.raises(QueueUnavailable) as caught:
        await queue.put(make(12_000))
    assert caught.value.taken == 10_000
    assert caught.value.__notes__ == ["10,000 changes of the call had been taken before"]
    assert (await queue.status()).pending == 10_000


async def test_a_bad_change_among_many_is_named_by_its_position_and_what_was_stored_is_said() -> None:
    queue = MemoryQueue()

    def with_a_bad_one() -> Iterator[dict[str, Any]]:
        yield from lines(5_010)
        yield {"completion_id": "c-1", "metadata": {"grade": 7}}

    with pytest.raises(
        InvalidChange, match=r"must be a string, not a number \(position 5010 of what was put\)"
    ) as caught:
        await queue.put(with_a_bad_one())
    assert caught.value.taken == 5_000
    assert await queue.put(list(lines(5_010))[caught.value.taken :]) == Stored(10, 0)


async def test_an_error_of_the_producers_own_passes_with_a_note() -> None:
    queue = MemoryQueue()

    def broken() -> Iterator[dict[str, Any]]:
        yield from lines(5_001)
        raise LookupError("the cursor was closed")

    with pytest.raises(LookupError) as caught:
        await queue.put(broken())
    assert caught.value.__notes__ == ["5,000 changes of the call had been taken before"]


BAD = {
    "unknown field 'grade'": {"completion_id": "c-1", "grade": "A"},
    "the field metadata is missing": {"completion_id": "c-1"},
    "a change must be a MetadataChange or a mapping, not": "c-1",
    "completion_id must be a string, not null": {"completion_id": None, "metadata": {}},
    "mode must be a string, not null": {"completion_id": "c-1", "metadata": {}, "mode": None},
}


@pytest.mark.parametrize("message", BAD)
async def test_an_object_that_is_no_change_is_refused_by_name(message: str) -> None:
    with pytest.raises(InvalidChange, match=message):
        await MemoryQueue().put([BAD[message]])  # type: ignore[list-item]  # that is the point


async def test_an_urgent_that_is_neither_true_nor_false_is_refused() -> None:
    queue = MemoryQueue()
    with pytest.raises(TypeError, match="urgent must be True or False, not 'no'"):
        await queue.put(MetadataChange("c-1", {}), urgent="no")  # type: ignore[arg-type]  # that is the point
    assert (await queue.status()).pending == 0


@pytest.mark.parametrize("given", ["c-1", b"c-1", 7, None])
async def test_what_is_no_iterable_of_changes_is_a_mistake_in_the_program(given: Any) -> None:
    with pytest.raises(TypeError, match="put takes a change, or an iterable of changes, not a"):
        await MemoryQueue().put(given)
