"""Folding changes equals sending them one by one."""

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
TIMES = st.one_of(st.none(), st.integers(0, 3).map(float))
MERGES = st.builds(
    lambda sets, removes, as_of: MetadataChange(ID, {**sets, **dict.fromkeys(removes)}, as_of=as_of),
    MAPS,
    st.lists(KEYS, max_size=4),
    TIMES,
)
REPLACES = st.builds(lambda metadata, as_of: MetadataChange(ID, metadata, "replace", as_of=as_of), MAPS, TIMES)
CHANGES = st.lists(st.one_of(MERGES, MERGES, REPLACES), max_size=12)


def one_by_one(current: Mapping[str, str], changes: Sequence[MetadataChange]) -> Folded:
    """What a service that refuses a seventeenth pair ends with, which changes it refuses, and which are not sent."""
    stored = dict(current)
    refused, unsent, times = [], [], [0.0]
    for position, change in enumerate(changes):
        if change.as_of is not None and change.as_of < max(times):
            unsent.append(position)
            continue
        wanted = dict(stored) if change.mode == "merge" else {}
        wanted |= {key: value for key, value in change.metadata.items() if value is not None}
        for key, value in change.metadata.items():
            if value is None and key in wanted:
                del wanted[key]
        if len(wanted) <= MAX_PAIRS:
            stored = wanted
            times.append(change.as_of or 0.0)
        else:
            refused.append(position)
    return Folded(stored, tuple(refused), tuple(unsent))


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
    taken = {*range(len(first))}.difference(before.too_many_keys, before.superseded)
    newest = max((first[position].as_of or 0.0 for position in taken), default=0.0)
    fresh = [position for position, each in enumerate(second) if each.as_of is None or each.as_of >= newest]
    after = fold(before.metadata, [second[position] for position in fresh])

    def places(positions: Sequence[int]) -> set[int]:
        return {len(first) + fresh[position] for position in positions}

    unsent = {len(first) + position for position in range(len(second))} - places(range(len(fresh)))
    assert fold(current, first + second) == Folded(
        after.metadata,
        tuple(sorted({*before.too_many_keys} | places(after.too_many_keys))),
        tuple(sorted({*before.superseded} | unsent | places(after.superseded))),
    )


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


def _dated(label: str, as_of: float | None) -> MetadataChange:
    return MetadataChange(ID, {"label": label}, as_of=as_of)


def test_a_change_that_is_older_than_one_before_it_is_left_out() -> None:
    folded = fold({}, [_dated("new", 5.0), _dated("old", 3.0), _dated("of then", 5.0), _dated("undated", None)])
    assert folded == Folded({"label": "undated"}, (), (1,))
    assert fold({}, [_dated("new", 5.0), _dated("undated", None), _dated("old", 3.0)]).superseded == (2,)
    assert fold({}, [_dated("old", 3.0), _dated("new", 5.0)]) == Folded({"label": "new"}, ())


def test_one_that_is_left_out_itself_supersedes_nothing() -> None:
    full = {f"key{number}": "old" for number in range(MAX_PAIRS)}
    folded = fold(
        full, [MetadataChange(ID, {"one too many": "x"}, as_of=5.0), MetadataChange(ID, {"key0": "x"}, as_of=3.0)]
    )
    assert folded == Folded(full | {"key0": "x"}, (0,))


def test_a_key_that_is_not_there_is_removed_without_complaint() -> None:
    assert fold({"a": "b"}, [MetadataChange(ID, {"gone": None, "c": "d"})]).metadata == {"a": "b", "c": "d"}


def test_a_replace_alone_is_the_whole_map() -> None:
    assert fold({"a": "b"}, [MetadataChange(ID, {"c": "d"}, "replace")]) == Folded({"c": "d"}, (), ())


def test_a_replace_after_a_merge_leaves_nothing_of_it() -> None:
    merge, replace = MetadataChange(ID, {"c": "d"}), MetadataChange(ID, {"e": "f"}, "replace")
    assert fold({"a": "b"}, [merge, replace]) == Folded({"e": "f"}, (), ())
