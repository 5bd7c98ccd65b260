"""The metadata that the service confirmed last, on every backend."""

import tracemalloc
from collections.abc import Mapping

import pytest

from tests.queue.conformance.backends import Advance, Backend
from tests.queue.helpers import LEASE_SECONDS, change, claim, claim_one, finished, numbers
from worker.changes import MetadataChange
from worker.queue import Claim, Settlement, Store, confirmed

LAG_SECONDS = 60.0
MAP = {"grade": "A", "label": "x"}


async def claims_of(queue: Store, limit: int = 100) -> list[Claim]:
    return await queue.claim(limit, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=LAG_SECONDS)


async def told(queue: Store, *completion_ids: str) -> dict[str, dict[str, str] | None]:
    """Merge more into these completions; return the maps that their claims carry, and finish the claims."""
    await queue.put([change(completion_id) for completion_id in completion_ids])
    claims = await claims_of(queue)
    assert await queue.settle([finished(claimed) for claimed in claims], keep_seconds=LAG_SECONDS) == []
    return {claimed.completion_id: claimed.confirmed for claimed in claims}


async def confirm(queue: Store, maps: Mapping[str, Mapping[str, str]]) -> None:
    """Apply a change to each completion; the service confirms these maps."""
    await queue.put([change(completion_id) for completion_id in maps])
    settlements = [
        Settlement(claimed, applied=numbers(claimed), confirmed=maps[claimed.completion_id])
        for claimed in await claim(queue, len(maps))
    ]
    assert await queue.settle(settlements, keep_seconds=LAG_SECONDS) == []


async def test_a_merge_is_told_what_was_confirmed_last(queue: Store) -> None:
    await confirm(queue, {"c-1": MAP, "c-2": {}})
    await confirm(queue, {"c-1": MAP | {"grade": "B"}})

    assert await told(queue, "c-1", "c-2", "c-3") == {"c-1": MAP | {"grade": "B"}, "c-2": {}, "c-3": None}
    assert await told(queue, "c-1") == {
        "c-1": MAP | {"grade": "B"}
    }  # a settlement without a map leaves the confirmed one as it was


async def test_only_claims_that_begin_with_a_merge_and_ask_are_told(queue: Store) -> None:
    await confirm(queue, {"c-1": MAP, "c-2": MAP, "c-3": MAP})
    await queue.put([MetadataChange("c-1", {}, "replace"), change("c-1"), change("c-2")])
    await queue.put([MetadataChange("c-2", {}, "replace")])
    first, second = await claims_of(queue)

    assert (first.completion_id, first.confirmed) == ("c-1", None)
    assert (second.completion_id, second.confirmed) == ("c-2", MAP)
    await queue.put([change("c-3")])
    assert (await claim_one(queue)).confirmed is None


async def test_what_is_not_to_be_kept_or_is_stale_is_not_told(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")])
    slow = await claim(queue)
    await advance(LEASE_SECONDS)
    first, second = await claim(queue)
    late = [Settlement(claimed, confirmed=MAP) for claimed in slow]
    assert await queue.settle(late, keep_seconds=LAG_SECONDS) == late
    await queue.settle([Settlement(first, applied=numbers(first), confirmed=MAP)])
    await queue.settle([finished(second)], keep_seconds=LAG_SECONDS)

    assert await told(queue, "c-1", "c-2") == {"c-1": None, "c-2": None}


async def test_what_one_worker_wrote_all_others_are_told_a_later_one_included(backend: Backend) -> None:
    async with backend.another() as other:
        await confirm(backend.queue, {"c-1": MAP})
        assert await told(other, "c-1", "c-2") == {"c-1": MAP, "c-2": None}
        await confirm(backend.queue, {"c-2": {"by": "one"}})
        assert await told(other, "c-1", "c-2") == {"c-1": MAP, "c-2": {"by": "one"}}
        await confirm(other, {"c-1": {"by": "the other"}})
        assert await told(backend.queue, "c-1", "c-2") == {"c-1": {"by": "the other"}, "c-2": {"by": "one"}}
    async with backend.another() as restarted:
        assert await told(restarted, "c-1", "c-2") == {"c-1": {"by": "the other"}, "c-2": {"by": "one"}}


async def test_what_is_older_than_asked_for_is_not_told(backend: Backend) -> None:
    await confirm(backend.queue, {"c-1": MAP, "c-2": MAP})
    assert await told(backend.queue, "c-1") == {"c-1": MAP}
    await backend.advance(LAG_SECONDS - 1)
    await confirm(backend.queue, {"c-2": {"newer": ""}})
    assert await told(backend.queue, "c-1") == {"c-1": MAP}
    await backend.advance(1)

    async with backend.another() as other:
        for queue in (backend.queue, other):
            assert await told(queue, "c-1", "c-2") == {"c-1": None, "c-2": {"newer": ""}}


async def test_a_claim_that_asks_for_less_takes_nothing_from_one_that_asks_for_more(backend: Backend) -> None:
    await confirm(backend.queue, {"c-1": MAP, "c-2": MAP})
    await backend.advance(30)
    for seconds, expected in ((10.0, None), (40.0, MAP), (0.0, None), (20.0, None), (40.0, MAP)):
        await backend.queue.put([change("c-1")])
        [claimed] = await backend.queue.claim(9, lease_seconds=5, owner="worker", confirmed_seconds=seconds)
        assert claimed.confirmed == expected
        await backend.queue.settle([finished(claimed)])


async def test_the_number_of_kept_updates_is_bounded_with_a_warning(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "MAX_UPDATES", 10)
    before = backend.queue.warnings
    await confirm(backend.queue, {f"a-{i}": MAP for i in range(5)})
    await confirm(backend.queue, {f"b-{i}": MAP for i in range(5)})
    assert await told(backend.queue, "a-0", "b-0") == {"a-0": MAP, "b-0": MAP}
    assert backend.queue.warnings == before
    await confirm(backend.queue, {f"c-{i}": MAP for i in range(5)})

    assert await told(backend.queue, "a-0", "b-0", "c-0") == {"a-0": None, "b-0": MAP, "c-0": MAP}
    assert len(backend.queue.warnings) == len(before) + 1
    await confirm(backend.queue, {f"d-{i}": MAP for i in range(5)})
    assert len(backend.queue.warnings) == len(before) + 1
    async with backend.another() as other:
        assert await told(other, "b-0", "c-0") == {"b-0": None, "c-0": MAP}


async def test_what_is_old_goes_with_what_comes_without_a_warning(backend: Backend) -> None:
    before = backend.queue.warnings
    for round_ in range(5):
        await confirm(backend.queue, {f"c-{round_}": MAP})
        await backend.advance(LAG_SECONDS)

    assert backend.queue.warnings == before


async def test_a_hot_set_is_told_its_latest_by_any_worker(backend: Backend) -> None:
    completion_ids = [f"c-{i:03}" for i in range(1_000)]
    expected: dict[str, dict[str, str]] = {}
    async with backend.another() as other:
        for round_ in range(6):
            queue = (backend.queue, other)[round_ % 2]
            await queue.put([change(each) for each in completion_ids[:: round_ + 1]])
            while claims := await claims_of(queue, 256):
                for claimed in claims:
                    assert claimed.confirmed == expected.get(claimed.completion_id)
                    expected[claimed.completion_id] = {"round": str(round_), "id": claimed.completion_id}
                settlements = [
                    Settlement(claimed, applied=numbers(claimed), confirmed=expected[claimed.completion_id])
                    for claimed in claims
                ]
                assert await queue.settle(settlements, keep_seconds=LAG_SECONDS) == []
    assert len(expected) == 1_000


async def test_any_text_is_told_as_it_was(queue: Store) -> None:
    odd = {'quote"\\': "a\0b", "\N{GRINNING FACE}": "\u2028\x7f", "": "[]", "long": "x" * 20_000}
    await confirm(queue, {"c-1": odd})

    assert await told(queue, "c-1") == {"c-1": odd}


async def test_what_is_old_is_deleted_without_a_settlement_too(backend: Backend, advance: Advance) -> None:
    queue = backend.queue
    await confirm(queue, {"c-1": MAP})
    await advance(LAG_SECONDS)
    await confirm(queue, {"c-2": MAP})
    await queue.forget_confirmed(LAG_SECONDS, most=100)
    await queue.put([change("c-1"), change("c-2")])
    first, second = await queue.claim(
        2, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=10 * LAG_SECONDS
    )
    assert (first.confirmed, second.confirmed) == (None, MAP)


async def test_what_is_confirmed_after_all_else_was_deleted_is_told_to_all(backend: Backend, advance: Advance) -> None:
    async with backend.another() as other:
        await confirm(backend.queue, {"c-1": MAP, "c-2": MAP})
        assert await told(other, "c-1") == {"c-1": MAP}
        await advance(LAG_SECONDS)
        await backend.queue.forget_confirmed(LAG_SECONDS, most=100)
        await backend.queue.forget_confirmed(LAG_SECONDS, most=100)
        await confirm(backend.queue, {"c-2": {"grade": "B"}})
        assert await told(other, "c-1", "c-2") == {"c-1": None, "c-2": {"grade": "B"}}


async def test_a_claim_whose_maps_are_in_many_large_rows_takes_little_memory(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "BYTES_AT_ONCE", 200_000)
    large = {f"key-{number:02}": "\N{GRINNING FACE}" * 512 for number in range(16)}
    for row in range(16):
        await confirm(backend.queue, {f"c-{row}-{number}": large | {"row": str(row)} for number in range(16)})
    async with backend.another() as other:
        await other.put([change(f"c-{row}-{row}") for row in range(16)])
        tracemalloc.start()
        try:
            claims = await claims_of(other)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert [each.confirmed for each in claims] == [large | {"row": str(row)} for row in range(16)]
    assert peak_bytes < 8_000_000  # all rows together have 8 MB of text, and take twice that at least
