"""Storing changes and leasing their targets, on every backend."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.queue.conformance.backends import START, Advance, Backend
from tests.queue.helpers import (
    EVERY_LETTER,
    LEASE_SECONDS,
    about,
    bury,
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
from worker.queue import MAX_BYTES_PER_CALL, MAX_CHANGES_PER_CLAIM, Claim, Place, Settlement, Store, Stored


async def test_a_claim_carries_what_was_put(queue: Store) -> None:
    await queue.put([MetadataChange("c-1", {"grade": "7", "old": None}, change_id="line-1")])

    claimed = await claim_one(queue)
    [stored] = claimed.changes

    assert claimed.completion_id == "c-1"
    assert claimed.age_seconds == about(0)
    assert (stored.completion_id, stored.change_id, stored.mode) == ("c-1", "line-1", "merge")
    assert (stored.metadata, stored.trials) == ('{"grade":"7","old":null}', None)


async def test_mode_replace_is_kept(queue: Store) -> None:
    await queue.put([MetadataChange("c-1", {}, "replace")])

    [stored] = (await claim_one(queue)).changes

    assert (stored.mode, stored.metadata, stored.change_id) == ("replace", "{}", None)


async def test_nothing_put_is_nothing_stored(queue: Store) -> None:
    assert await queue.put([]) == Stored(0, 0)
    assert await claim(queue) == []


async def test_changes_of_one_completion_keep_their_order(queue: Store) -> None:
    await queue.put([change("c-1", "1"), change("c-2", "a"), change("c-1", "2")])
    await queue.put([change("c-1", "3"), change("c-2", "b")])

    assert await pending_labels(queue) == {"c-1": ["1", "2", "3"], "c-2": ["a", "b"]}


async def test_numbers_rise_in_the_order_of_puts(queue: Store) -> None:
    await queue.put([change("c-2"), change("c-1")])
    await queue.put([change("c-3")])

    by_completion = {claimed.completion_id: numbers(claimed) for claimed in await claim(queue)}

    assert by_completion["c-2"] < by_completion["c-1"] < by_completion["c-3"]


async def test_a_pending_change_id_is_not_stored_again(queue: Store) -> None:
    await queue.put([change("c-1", "first", change_id="line-1")])

    assert await queue.put([change("c-1", "first", change_id="line-1"), change("c-2", "other")]) == Stored(
        1, 1, pending_in={None: 1}
    )
    assert await pending_labels(queue) == {"c-1": ["first"], "c-2": ["other"]}


async def test_a_change_id_counts_once_in_one_call_and_the_first_is_stored(queue: Store) -> None:
    thrice = [change("c-1", each, change_id="line-1") for each in ("first", "second", "first")]

    assert await queue.put(thrice) == Stored(1, 1, conflicts=(1,), pending_in={None: 1})
    assert await pending_labels(queue) == {"c-1": ["first"]}


FIRST = MetadataChange("c-1", {"a": "1", "ü\N{GRINNING FACE}": None, "": "\"\\'\x01"}, change_id="line-1")


@pytest.mark.parametrize(
    "other",
    [
        MetadataChange("c-2", FIRST.metadata, change_id="line-1"),
        MetadataChange("c-1", {"a": "1", "": "\"\\'\x01"}, change_id="line-1"),
        MetadataChange("c-1", {**FIRST.metadata, "a": "2"}, change_id="line-1"),
        MetadataChange("c-1", {**FIRST.metadata, "a": None}, change_id="line-1"),
        MetadataChange("c-1", {**FIRST.metadata, "b": "2"}, change_id="line-1"),
        MetadataChange("c-1", {"a": "1", "A": None, "": "\"\\'\x01"}, change_id="line-1"),
    ],
)
async def test_a_pending_change_id_with_other_content_is_a_conflict_and_changes_nothing(
    queue: Store, other: MetadataChange
) -> None:
    await queue.put([FIRST])

    assert await queue.conflicts([FIRST, other, change("c-3", change_id="line-0"), other, change("c-1")]) == (1, 3)
    around = [change("c-3", change_id="line-0"), other, change("c-3"), other, FIRST]
    assert await queue.put(around) == Stored(2, 1, conflicts=(1, 3), pending_in={None: 1})
    [pending] = [each for each in await claim(queue) if each.completion_id != "c-3"]
    assert [msgspec.json.decode(each.metadata) for each in pending.changes] == [FIRST.metadata]


async def test_the_mode_is_part_of_what_a_change_says(queue: Store) -> None:
    await queue.put([MetadataChange("c-1", {"a": "1"}, change_id="line-1")])

    assert await queue.put([MetadataChange("c-1", {"a": "1"}, "replace", "line-1")]) == Stored(0, 0, conflicts=(0,))


async def test_metadata_is_compared_as_json_in_any_order_of_keys(queue: Store) -> None:
    await queue.put([FIRST])
    backwards = MetadataChange("c-1", dict(reversed(list(FIRST.metadata.items()))), change_id="line-1")

    assert await queue.put([backwards, FIRST]) == Stored(0, 2, pending_in={None: 2})


async def test_conflicts_are_found_among_many_changes_of_one_completion(queue: Store) -> None:
    """Some are claimed, some done, and some have trials noted."""
    lines = [change("c-1", str(i), change_id=f"line-{i}") for i in range(1_300)]
    await queue.put(lines[:700])
    claimed = await claim_one(queue)
    done = numbers(claimed)[::3]
    tried = [(number, "tried") for number in numbers(claimed)[1::3]]
    await queue.settle([Settlement(claimed, applied=done, trials=tried)])
    await queue.put(lines[700:])

    again = [change("c-1", f"{i} again", change_id=f"line-{i}") for i in range(1_300)]
    gone = set(range(0, 700, 3))
    stored = await queue.put(again)
    assert stored == Stored(len(gone), 0, conflicts=tuple(i for i in range(1_300) if i not in gone))


async def test_a_letter_that_is_pending_again_has_its_change_id_and_what_it_says(queue: Store) -> None:
    await bury(queue, FIRST)
    await queue.retry_dead(EVERY_LETTER)
    await claim(queue)  # puts nothing between

    assert await queue.put([FIRST, change("c-1", change_id="line-1")]) == Stored(
        0, 1, conflicts=(1,), pending_in={None: 1}
    )


async def test_a_duplicate_makes_no_target(queue: Store) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await queue.put([change("c-2", change_id="line-1")])
    await queue.settle([finished(await claim_one(queue))])

    assert await queue.next_due_seconds() is None


async def test_a_change_id_is_still_pending_while_it_is_claimed(queue: Store) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await claim_one(queue)

    assert await queue.put([change("c-1", change_id="line-1")]) == Stored(0, 1, pending_in={None: 1})


async def test_a_change_id_may_come_again_once_it_is_done(queue: Store) -> None:
    await queue.put([change("c-1", change_id="line-1")])
    await queue.settle([finished(await claim_one(queue))])

    assert await queue.put([change("c-1", change_id="line-1")]) == Stored(1, 0)


async def test_changes_without_a_change_id_are_never_duplicates(queue: Store) -> None:
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


async def test_the_largest_metadata_comes_back_as_it_was(queue: Store) -> None:
    largest = {f'\N{GRINNING FACE}"\\{i:062}'[:64]: "\x01\N{GRINNING FACE}" * 256 for i in range(16)}
    await queue.put([MetadataChange("c-1", largest, "replace")] * 20)

    claimed = await claim_one(queue)

    assert [msgspec.json.decode(each.metadata) for each in claimed.changes] == [largest] * 20


async def test_strings_of_any_kind_are_stored_as_strings(queue: Store) -> None:
    class Label(str):
        __slots__ = ()

    await queue.put([MetadataChange(Label("c-1"), {Label("k"): Label("v")}, change_id=Label("line-1"))])

    [stored] = (await claim_one(queue)).changes
    assert (stored.completion_id, stored.metadata, stored.change_id) == ("c-1", '{"k":"v"}', "line-1")


async def test_the_longest_ids_come_back_as_they_were(queue: Store) -> None:
    completion_id, change_id = "c" + "._-" * 85, "\N{GRINNING FACE}'\"" * 85
    await queue.put([change(completion_id, change_id=change_id)])

    [stored] = (await claim_one(queue)).changes

    assert (stored.completion_id, stored.change_id) == (completion_id, change_id)


async def test_a_large_put_is_stored_whole_and_in_order(queue: Store) -> None:
    assert await queue.put([change(f"c-{i % 30}", str(i)) for i in range(12_001)]) == Stored(12_001, 0)

    assert (await pending_labels(queue))["c-7"] == [str(i) for i in range(7, 12_001, 30)]


async def test_a_claimed_target_is_not_claimed_again(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")])

    assert len(await claim(queue)) == 2
    assert await claim(queue) == []


async def test_a_claim_takes_no_more_than_its_limit(queue: Store) -> None:
    await queue.put([change(f"c-{i}") for i in range(5)])

    assert [len(await claim(queue, 2)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_claim_of_nothing_gets_nothing(queue: Store, limit: int) -> None:
    await queue.put([change("c-1")])

    assert await claim(queue, limit) == []


async def test_the_oldest_due_targets_are_claimed_first(queue: Store, advance: Advance) -> None:
    for completion_id in ("c-3", "c-1", "c-2"):
        await queue.put([change(completion_id)])
        await advance(1)
    await queue.put([change("c-3", "newer")])  # does not change when it became due

    assert [(await claim(queue, 1))[0].completion_id for _ in range(3)] == ["c-3", "c-1", "c-2"]


async def test_a_target_whose_lease_ran_out_is_claimed_again_under_a_new_lease(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    first = await claim_one(queue)

    await advance(LEASE_SECONDS - 1)
    assert await claim(queue) == []
    await advance(1)
    second = await claim_one(queue)

    assert second.lease > first.lease
    assert second.changes == first.changes


async def test_a_lease_has_a_number_of_its_own_that_is_no_less_than_the_time(queue: Store, advance: Advance) -> None:
    await queue.put([change(f"c-{i}") for i in range(4)])
    leases = [
        {claimed.lease for claimed in await claim(queue, 2)},
        {claimed.lease for claimed in await claim(queue, 1)},
    ]
    await advance(3_600)
    leases += [{claimed.lease for claimed in await claim(queue)}]
    [first], [second], [third] = leases  # one for each call

    assert START * 1e6 <= first < second
    assert third >= (START + 3_600) * 1e6
    await advance(-7_200)  # the numbers do not go back with the clock
    await queue.put([change("c-5")])
    while not (claims := await claim(queue)):  # PostgreSQL looks there within a second
        pass
    assert claims[0].lease > third


async def test_a_target_that_went_and_came_back_never_sees_an_old_lease(queue: Store) -> None:
    leases = []
    for _ in range(3):
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        leases.append(claimed.lease)
        await queue.settle([finished(claimed)])

    assert leases == sorted(set(leases))


async def test_a_claim_knows_the_age_of_its_oldest_change(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    await advance(30)
    await queue.put([change("c-1")])
    await advance(12)

    assert (await claim_one(queue)).age_seconds == about(42)


async def test_a_claim_carries_a_bounded_number_of_changes_and_the_rest_follows_in_order(queue: Store) -> None:
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


async def test_long_targets_are_all_claimed_in_the_end(queue: Store) -> None:
    expected = {f"c-{i}" for i in range(12)}
    await queue.put([each for completion_id in sorted(expected) for each in changes(completion_id, range(1_000))])
    seen = []
    while claims := await claim(queue):
        assert all(len(claimed.changes) == 1_000 for claimed in claims)
        seen += [claimed.completion_id for claimed in claims]

    assert sorted(seen) == sorted(expected)


async def test_nothing_is_due_in_an_empty_queue(queue: Store) -> None:
    assert await queue.next_due_seconds() is None


async def test_a_new_change_is_due_at_once_and_later_overdue(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    assert await queue.next_due_seconds() == about(0)
    await advance(5)
    assert await queue.next_due_seconds() == about(-5)


async def test_a_lease_is_due_when_it_runs_out(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    await claim_one(queue)
    await advance(20)

    assert await queue.next_due_seconds() == about(LEASE_SECONDS - 20)


async def test_the_next_due_is_the_earliest_of_all(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, second = await claim(queue)
    await queue.settle([Settlement(first, delay_seconds=50), Settlement(second, delay_seconds=40)])

    assert await queue.next_due_seconds() == about(40)


async def test_a_claim_ends_where_it_would_carry_too_much(queue: Store) -> None:
    await queue.put([each for i in range(12) for each in changes(f"c-{i}", range(MAX_CHANGES_PER_CLAIM))])

    claims = [await claim(queue) for _ in range(3)]
    assert [len(each) for each in claims] == [10, 2, 0]
    assert {len(claimed.changes) for each in claims for claimed in each} == {MAX_CHANGES_PER_CLAIM}


async def _claimed_at(queue: Store, place: Place, limit: int = 1) -> str:
    [claimed] = await queue.claim(limit, lease_seconds=LEASE_SECONDS, owner="worker", place=place)
    return claimed.completion_id


async def test_what_came_at_once_has_an_oldest_a_middle_and_a_newest(queue: Store) -> None:
    await queue.put([change(f"c-{i:03}") for i in range(200)])

    assert await _claimed_at(queue, "oldest") == "c-000"
    assert await _claimed_at(queue, "newest") == "c-199"
    assert "c-050" < await _claimed_at(queue, "middle") < "c-150"
    assert await _claimed_at(queue, "newest") == "c-198"  # a lease holds in any place


@pytest.mark.parametrize("tried", [1, 3, 50])
async def test_the_newest_is_what_came_last_and_not_what_was_tried_and_put_back(
    queue: Store, advance: Advance, tried: int
) -> None:
    await queue.put([change(f"tried-{i}") for i in range(tried)])
    claims = await claim(queue)
    await advance(1)
    await queue.put([change("fresh-1"), change("fresh-2")])
    await advance(1)
    await queue.settle([Settlement(claimed, delay_seconds=1) for claimed in claims])
    await advance(2)

    assert [await _claimed_at(queue, "newest") for _ in range(2)] == ["fresh-2", "fresh-1"]
    assert (await _claimed_at(queue, "newest")).startswith("tried-")


async def test_the_newest_is_found_where_none_that_came_of_late_is_due(queue: Store) -> None:
    await queue.put([change(f"c-{i:03}") for i in range(100)])
    late = [await _claimed_at(queue, "newest") for _ in range(60)]

    assert len(set(late)) == 60
    assert await _claimed_at(queue, "newest") == "c-039"


@pytest.mark.parametrize("place", ["middle", "newest"])
async def test_nothing_that_is_not_due_is_claimed_anywhere(queue: Store, advance: Advance, place: Place) -> None:
    await queue.put([change(f"c-{i}") for i in range(9)])
    claims = await claim(queue)
    assert await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place=place) == []
    await queue.settle([Settlement(claimed, delay_seconds=10 + i) for i, claimed in enumerate(claims)])
    await advance(10)

    assert await _claimed_at(queue, place, limit=5) == claims[0].completion_id
    assert await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", place=place) == []
    assert await queue.claim(0, lease_seconds=LEASE_SECONDS, owner="worker", place=place) == []


async def test_of_two_the_middle_is_one(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")])

    assert {await _claimed_at(queue, "middle"), await _claimed_at(queue, "middle")} == {"c-1", "c-2"}


@pytest.mark.parametrize("backlog", ["between a day ago and now", "before a gap", "after a gap", "waiting"])
async def test_the_middle_is_far_from_both_ends_with_any_gaps(queue: Store, advance: Advance, backlog: str) -> None:
    """By number or by time alone, the middle may be the very first or last."""
    many = [change(f"m-{i:03}") for i in range(400)]
    match backlog:
        case "between a day ago and now":
            await queue.put([change("a-old")])
            await advance(86_400)
            await queue.put(many)
            await advance(86_400)
            await queue.put([change("z-new")])
        case "before a gap":  # half of all is done, and one of the first is to be tried again
            await queue.put([*(change(f"a-{i}") for i in range(400)), *many])
            claims = await claim(queue, 400)
            await advance(86_400)
            await queue.settle([Settlement(claims[0]), *(finished(claimed) for claimed in claims[1:])])
        case "after a gap":
            await queue.put([change("a-old"), *(change(f"b-{i}") for i in range(400)), *many])
            claims = await claim(queue, 401)
            await queue.settle([finished(claimed) for claimed in claims[1:]])
            await advance(LEASE_SECONDS)
        case "waiting":  # most are to be tried later
            await queue.put(many)
            claims = await claim(queue, 400)
            await queue.settle([Settlement(claimed, delay_seconds=i) for i, claimed in enumerate(claims, 1)])
            await advance(20)

    found = await _claimed_at(queue, "middle")
    low, high = (2, 18) if backlog == "waiting" else (40, 360)
    assert f"m-{low:03}" < found < f"m-{high:03}"


def _large(completion_id: str, count: int) -> list[MetadataChange]:
    """Make changes of 33 KB each, in characters of several bytes."""
    return [MetadataChange(completion_id, {f"{i:064}": "\N{GRINNING FACE}" * 512 for i in range(16)})] * count


def _bytes_of(claimed: Claim) -> int:
    """The size of its changes' metadata."""
    return sum(len(each.metadata.encode()) for each in claimed.changes)


async def test_a_claim_carries_a_bounded_size_and_the_rest_follows(queue: Store) -> None:
    for i in range(5):
        await queue.put(_large(f"c-{i}", 100))

    sizes = []
    while claims := await claim(queue):
        assert {len(claimed.changes) for claimed in claims} == {100}
        sizes.append(sum(map(_bytes_of, claims)))

    [text] = {msgspec.json.encode(dict(each.metadata)) for each in _large("c-0", 1)}
    assert sizes == [200 * len(text), 200 * len(text), 100 * len(text)]
    assert max(sizes) < MAX_BYTES_PER_CALL < 300 * len(text)


async def test_a_target_that_is_too_large_for_one_claim_is_claimed_in_parts_and_in_order(
    queue: Store, advance: Advance
) -> None:
    await queue.put([change("c-1", "first"), *_large("c-1", 300), change("c-1", "last"), change("c-2")])
    parts = []
    while claims := await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker"):
        [claimed] = claims
        parts.append(claimed)
        await advance(1)
        assert await queue.settle([finished(claimed)]) == []

    assert [claimed.completion_id for claimed in parts] == ["c-1", "c-2", "c-1"]
    assert 200 < len(parts[0].changes) < 250
    assert _bytes_of(parts[0]) < MAX_BYTES_PER_CALL
    assert numbers(parts[0]) + numbers(parts[2]) == sorted(numbers(parts[0]) + numbers(parts[2]))
    assert len(parts[0].changes) + len(parts[2].changes) == 302
    assert parts[2].changes[-1].metadata == '{"label":"last"}'
