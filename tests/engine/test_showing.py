"""The metadata that an update's answer shows, compared with the wanted metadata."""

import pytest

from worker.changes import MetadataChange
from worker.engine.blame import Semantics
from worker.engine.showing import Wanted, ending_of, wrong_keys
from worker.flow import SERVICE_MERGES, End

MERGE_A = MetadataChange("c", {"a": "1", "gone": None})
MERGE_B = MetadataChange("c", {"b": "2"})
REPLACE = MetadataChange("c", {"a": "1"}, "replace")


def _merged() -> Wanted:
    return Wanted({"a": "1", "b": "2", "old": "x"}, {1: MERGE_A, 2: MERGE_B})


def _replaced() -> Wanted:
    return Wanted({"a": "1"}, {1: REPLACE})


def test_wanted_knows_its_removed_keys_and_whether_it_replaces() -> None:
    assert (_merged().removed, _merged().replaces) == ({"gone"}, False)
    assert (_replaced().removed, _replaced().replaces) == (set(), True)


def test_a_key_that_is_removed_and_set_again_is_not_removed() -> None:
    again = MetadataChange("c", {"gone": "back"})
    assert Wanted({"a": "1", "gone": "back"}, {1: MERGE_A, 2: again}).removed == set()


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ({"a": "1", "b": "2", "old": "x"}, []),
        ({"a": "7", "b": "2", "old": "x"}, ["a"]),
        ({"b": "2"}, ["a", "old"]),
        ({"a": "1", "b": "2", "old": "x", "gone": "y"}, ["gone"]),
        ({"a": "1", "b": "2", "old": "x", "else": "y"}, []),  # left over, and no change names it
    ],
)
def test_a_key_is_wrong_with_another_value_or_missing_or_still_there(shown: dict[str, str], wrong: list[str]) -> None:
    assert wrong_keys(shown, _merged()) == wrong


def test_the_last_change_that_names_a_key_is_responsible_for_it() -> None:
    wanted = Wanted({"a": "3"}, {1: MERGE_A, 2: MERGE_B, 3: MetadataChange("c", {"a": "3"})})
    assert wanted.responsible_for(["a"]) == {3}
    assert wanted.responsible_for(["gone", "b"]) == {1, 2}
    assert wanted.responsible_for([]) == set()
    assert wanted.responsible_for(["old"]) == {1, 2, 3}  # no change names it: all of them


def test_a_replacement_is_responsible_for_every_key() -> None:
    wanted = Wanted({"a": "1", "b": "2"}, {1: MERGE_A, 2: REPLACE, 3: MERGE_B})
    assert wanted.responsible_for(["old"]) == {2}
    assert wanted.responsible_for(["b"]) == {3}


@pytest.mark.parametrize("semantics", ["unknown", "merge", "replace"])
@pytest.mark.parametrize("shown", [None, {"a": "1"}])
def test_an_answer_that_shows_no_other_metadata_is_a_success(
    shown: dict[str, str] | None, semantics: Semantics
) -> None:
    assert ending_of(shown, _replaced(), semantics).end is End.SUCCEEDED


@pytest.mark.parametrize("shown", [{}, {"a": "2"}, {"a": "2", "old": "x"}])
def test_an_answer_that_shows_other_metadata_is_not_a_success(shown: dict[str, str]) -> None:
    assert ending_of(shown, _replaced(), "unknown").end is End.REJECTED


@pytest.mark.parametrize(
    ("semantics", "end"), [("unknown", End.FAILED), ("merge", End.SUCCEEDED), ("replace", End.ANSWERED)]
)
def test_leftovers_of_a_replacement_are_judged_by_semantics(semantics: Semantics, end: End) -> None:
    ended = ending_of({"a": "1", "old": "x"}, _replaced(), semantics)
    assert ended.end is end
    if end is End.FAILED:
        assert ended.reason == SERVICE_MERGES
        assert ended.error is not None
        assert "old" in ended.error


def test_keys_that_a_merge_does_not_name_are_not_leftovers() -> None:
    assert ending_of({"a": "1", "b": "2", "old": "x", "else": "y"}, _merged(), "unknown").end is End.SUCCEEDED
