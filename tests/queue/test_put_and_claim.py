"""What every backend promises about storing changes and leasing their targets."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.queue.backends import Advance, Backend
from tests.queue.helpers import (
    LEASE_SECONDS,
    about,
    change,
    changes,
    claim,
    claim_one,
    finished,
    labels,
    numbers,
    pending_labels,
)
from worker.changes import MetadataChange
from worker.queue import Queue
from worker.queue.base import MAX_CHANGES_PER_CLAIM, Settlement, Stored


async def test_a_claim_carries_what_was_put(queue: Queue) -> None:
    await queue.put([MetadataChange("c-1", {"grade": "7", "old": None}, change_id="line-1")])

    claimed = await claim_one(queue)
    [stored] = claimed.changes

    assert (claimed.completion_id, claimed.attempts) == ("c-1", 0)
    assert claimed.age_seconds == about(0)
    assert (stored.completion_id, stored.change_id, stored.mode) == ("c-1", "line-1", "merge")
    assert stored.metadata == '{"grade":"7","old":null}'


async def test_mode_replace_is_kept(queue: Queue) -> None:
    await queue.put([MetadataChange("c-1", {}, "replace")])

    [stored] = (await claim_one(queue)).changes

    assert (stored.mode, stored.metadata, stored.change_id) == ("replace", "{}", None)


async def test_nothing_put_is_nothing_stored(queue: Queue) -> None:
    assert await queue.put([]) == Stored(0, 0)
    assert await claim(queue) == []


async def test_changes_of_one_completion_keep_their_order(queue: Queue) -> None:
    await queue.put([change("c-1", "1"), change("c-2", "a"), change("c-1", "2")])
    await queue.put([change("c-1", "3"), change("c-2", "b")])

    assert await pending_labels(queue) == {"c-1": ["1", "2", "3"], "c-2": ["a", "b"]}


async def test_numbers_rise_in_the_order_of_puts(queue: Queue) -> None:
    await queue.put([change("c-2"), change("c-1")])
    await queue.put([change("c-3")])

    by_completion = {claimed.completion_id: numbers(claimed) for claimed in await claim(queue)}

    assert by_completion["c-2"] < by_completion["c-1"] < by_completion["c-3"]


async def test_a_pending_change_id_is_not_stored_again(queue: Queue) -> None:
    await queue.put([change("c-1", "first", change_id="line-1")])

    assert await queue.put([change("c-2", "second", change_id="line-1"), change("c-2", "other")]) == Stored(1, 1)
    assert await pending_labels(queue) == {"c-1": ["first"], "c-2": ["other"]}


async def test_a_change_id_counts_once_in_one_call_and_the_first_is_stored(queue: Queue) -> None:
    twice = [change("c-1", "first", change_id="line-1"), change("c-1", "second", change_id="line-1")]

    assert await queue.put(twice) == Stored(1, 1)
    assert await pending_labels(queue) == {"c-1": ["first"]}


async def test_a_duplicate_makes_no_target(queue: Queue) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await queue.put([change("c-2", change_id="line-1")])
    await queue.settle([finished(await claim_one(queue))])

    assert await queue.next_due_seconds() is None


async def test_a_change_id_is_still_pending_while_it_is_claimed(queue: Queue) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await claim_one(queue)

    assert await queue.put([change("c-1", change_id="line-1")]) == Stored(0, 1)


async def test_a_change_id_may_come_again_once_it_is_done(queue: Queue) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await queue.settle([finished(await claim_one(queue))])

    assert await queue.put([change("c-1", change_id="line-1")]) == Stored(1, 0)


async def test_changes_without_a_change_id_are_never_duplicates(queue: Queue) -> None:
    assert await queue.put([change("c-1"), change("c-1")]) == Stored(2, 0)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    metadata=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=64),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=512),
        max_size=16,
    )
)
async def test_any_metadata_comes_back_as_it_was(metadata: dict[str, str], backend: Backend) -> None:
    sent = MetadataChange("c-1", metadata, "replace")
    await backend.queue.put([sent])

    claimed = await claim_one(backend.queue)
    await backend.queue.settle([finished(claimed)])

    assert msgspec.json.decode(claimed.changes[0].metadata) == metadata


async def test_the_largest_metadata_comes_back_as_it_was(queue: Queue) -> None:
    largest = {f'\N{GRINNING FACE}"\\{i:062}'[:64]: "\x01\N{GRINNING FACE}" * 256 for i in range(16)}
    await queue.put([MetadataChange("c-1", largest, "replace")] * 20)

    claimed = await claim_one(queue)

    assert [msgspec.json.decode(each.metadata) for each in claimed.changes] == [largest] * 20


async def test_strings_of_any_kind_are_stored_as_strings(queue: Queue) -> None:
    class Label(str):
        __slots__ = ()

    await queue.put([MetadataChange(Label("c-1"), {Label("k"): Label("v")}, change_id=Label("line-1"))])

    [stored] = (await claim_one(queue)).changes
    assert (stored.completion_id, stored.metadata, stored.change_id) == ("c-1", '{"k":"v"}', "line-1")


async def test_the_longest_ids_come_back_as_they_were(queue: Queue) -> None:
    completion_id, change_id = "c" + "._-" * 85, "\N{GRINNING FACE}'\"" * 85
    await queue.put([change(completion_id, change_id=change_id)])

    [stored] = (await claim_one(queue)).changes

    assert (stored.completion_id, stored.change_id) == (completion_id, change_id)


async def test_a_large_put_is_stored_whole_and_in_order(queue: Queue) -> None:
    assert await queue.put([change(f"c-{i % 30}", str(i)) for i in range(12_001)]) == Stored(12_001, 0)

    assert (await pending_labels(queue))["c-7"] == [str(i) for i in range(7, 12_001, 30)]


async def test_a_claimed_target_is_not_claimed_again(queue: Queue) -> None:
    await queue.put([change("c-1"), change("c-2")])

    assert len(await claim(queue)) == 2
    assert await claim(queue) == []


async def test_a_claim_takes_no_more_than_its_limit(queue: Queue) -> None:
    await queue.put([change(f"c-{i}") for i in range(5)])

    assert [len(await claim(queue, 2)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_claim_of_nothing_gets_nothing(queue: Queue, limit: int) -> None:
    await queue.put([change("c-1")])

    assert await claim(queue, limit) == []


async def test_the_oldest_due_targets_are_claimed_first(queue: Queue, advance: Advance) -> None:
    for completion_id in ("c-3", "c-1", "c-2"):
        await queue.put([change(completion_id)])
        await advance(1)
    await queue.put([change("c-3", "newer")])  # changes nothing about when it became due

    assert [(await claim(queue, 1))[0].completion_id for _ in range(3)] == ["c-3", "c-1", "c-2"]


async def test_a_target_whose_lease_ran_out_is_claimed_again_under_a_new_lease(queue: Queue, advance: Advance) -> None:
    await queue.put([change("c-1")])
    first = await claim_one(queue)

    await advance(LEASE_SECONDS - 1)
    assert await claim(queue) == []
    await advance(1)
    second = await claim_one(queue)

    assert second.lease > first.lease
    assert second.changes == first.changes
    assert second.attempts == 0  # a worker that was killed is not the change's fault


async def test_a_target_that_went_and_came_back_never_sees_an_old_lease(queue: Queue) -> None:
    leases = []
    for _ in range(3):
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        leases.append(claimed.lease)
        await queue.settle([finished(claimed)])

    assert leases == sorted(set(leases))


async def test_a_claim_knows_the_age_of_its_oldest_change(queue: Queue, advance: Advance) -> None:
    await queue.put([change("c-1")])
    await advance(30)
    await queue.put([change("c-1")])
    await advance(12)

    assert (await claim_one(queue)).age_seconds == about(42)


async def test_a_claim_carries_a_bounded_number_of_changes_and_the_rest_follows_in_order(queue: Queue) -> None:
    total = 2 * MAX_CHANGES_PER_CLAIM + 5
    await queue.put(changes("c-1", range(total)))
    seen: list[str] = []
    sizes = []
    while claimed := await claim(queue):
        seen += labels(claimed[0])
        sizes.append(len(claimed[0].changes))
        await queue.settle([finished(claimed[0])])

    assert sizes == [MAX_CHANGES_PER_CLAIM, MAX_CHANGES_PER_CLAIM, 5]
    assert seen == [str(i) for i in range(total)]


async def test_long_targets_are_all_claimed_in_the_end(queue: Queue) -> None:
    expected = {f"c-{i}" for i in range(12)}
    await queue.put([each for completion_id in sorted(expected) for each in changes(completion_id, range(1_000))])
    seen = []
    while claims := await claim(queue):
        assert all(len(claimed.changes) == 1_000 for claimed in claims)
        seen += [claimed.completion_id for claimed in claims]

    assert sorted(seen) == sorted(expected)


async def test_nothing_is_due_in_an_empty_queue(queue: Queue) -> None:
    assert await queue.next_due_seconds() is None


async def test_a_new_change_is_due_at_once_and_later_overdue(queue: Queue, advance: Advance) -> None:
    await queue.put([change("c-1")])
    assert await queue.next_due_seconds() == about(0)
    await advance(5)
    assert await queue.next_due_seconds() == about(-5)


async def test_a_lease_is_due_when_it_runs_out(queue: Queue, advance: Advance) -> None:
    await queue.put([change("c-1")])
    await claim_one(queue)
    await advance(20)

    assert await queue.next_due_seconds() == about(LEASE_SECONDS - 20)


async def test_the_next_due_is_the_earliest_of_all(queue: Queue) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, second = await claim(queue)
    await queue.settle([Settlement(first, delay_seconds=50), Settlement(second, delay_seconds=40)])

    assert await queue.next_due_seconds() == about(40)
