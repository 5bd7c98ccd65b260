"""Folding changes on paper equals sending them one by one."""

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.changes.reading import unhurried
from worker.changes import MetadataChange
from worker.changes.change import MAX_PAIRS
from worker.changes.fold import Folded, fold, needs_current

ID = "chatcmpl-9x"

# Few enough keys that changes meet on them, and enough to go over the limit of pairs.
KEYS = st.sampled_from([f"key{number}" for number in range(MAX_PAIRS + 6)])
VALUES = st.sampled_from(["", "a", "b"])
MAPS = st.dictionaries(KEYS, VALUES, max_size=MAX_PAIRS)
MERGES = st.builds(
    lambda sets, removes: MetadataChange(ID, {**sets, **dict.fromkeys(removes)}), MAPS, st.lists(KEYS, max_size=4)
)
REPLACES = st.builds(lambda metadata: MetadataChange(ID, metadata, "replace"), MAPS)
CHANGES = st.lists(st.one_of(MERGES, MERGES, REPLACES), max_size=12)


def one_by_one(current: Mapping[str, str], changes: Sequence[MetadataChange]) -> Folded:
    """What a service that refuses a seventeenth pair ends with, and which changes it refuses."""
    stored = dict(current)
    refused = []
    for position, change in enumerate(changes):
        wanted = dict(stored) if change.mode == "merge" else {}
        wanted |= {key: value for key, value in change.metadata.items() if value is not None}
        for key, value in change.metadata.items():
            if value is None and key in wanted:
                del wanted[key]
        if len(wanted) <= MAX_PAIRS:
            stored = wanted
        else:
            refused.append(position)
    return Folded(stored, tuple(refused))


@unhurried
@given(current=MAPS, changes=CHANGES)
def test_folding_equals_applying_one_by_one(current: dict[str, str], changes: list[MetadataChange]) -> None:
    assert fold(current, changes) == one_by_one(current, changes)


@unhurried
@given(current=MAPS, first=CHANGES, second=CHANGES)
def test_folding_in_two_parts_equals_folding_at_once(
    current: dict[str, str], first: list[MetadataChange], second: list[MetadataChange]
) -> None:
    before = fold(current, first)
    after = fold(before.metadata, second)
    refused = before.too_many_keys + tuple(len(first) + position for position in after.too_many_keys)

    assert fold(current, first + second) == Folded(after.metadata, refused)


@unhurried
@given(current=MAPS, other=MAPS, first=REPLACES, rest=CHANGES)
def test_the_current_metadata_does_not_matter_under_a_replace(
    current: dict[str, str], other: dict[str, str], first: MetadataChange, rest: list[MetadataChange]
) -> None:
    changes = [first, *rest]

    assert not needs_current(changes)
    assert fold(current, changes) == fold(other, changes)


@unhurried
@given(current=MAPS, changes=CHANGES)
def test_folding_changes_nothing_that_it_was_given(current: dict[str, str], changes: list[MetadataChange]) -> None:
    before = dict(current), [dict(change.metadata) for change in changes]

    fold(current, changes).metadata["new"] = "value"

    assert (current, [change.metadata for change in changes]) == before


def test_a_change_over_the_limit_has_no_effect_and_the_others_go_on() -> None:
    full = {f"key{number}": "old" for number in range(MAX_PAIRS)}
    changes = [
        MetadataChange(ID, {"key0": "new"}),
        MetadataChange(ID, {"one too many": "x", "key1": "never"}),
        MetadataChange(ID, {"key2": None}),
        MetadataChange(ID, {"fits now": "x"}),
    ]

    folded = fold(full, changes)

    assert folded.too_many_keys == (1,)
    assert folded.metadata == {key: "old" for key in full if key != "key2"} | {"key0": "new", "fits now": "x"}


def test_a_key_that_makes_way_in_the_same_change_counts_no_more() -> None:
    full = {f"key{number}": "old" for number in range(MAX_PAIRS)}

    folded = fold(full, [MetadataChange(ID, {"key0": None, "new": "x"})])

    assert folded.too_many_keys == ()
    assert folded.metadata == {key: "old" for key in full if key != "key0"} | {"new": "x"}


def test_only_a_merge_in_front_needs_the_current_metadata() -> None:
    merge, replace = MetadataChange(ID, {"a": "b"}), MetadataChange(ID, {}, "replace")

    assert needs_current([merge, replace])
    assert not needs_current([replace, merge])
    assert not needs_current([])
