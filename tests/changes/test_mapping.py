"""A Python mapping as a change."""

from types import MappingProxyType

import pytest

from worker.changes import InvalidChange, MetadataChange
from worker.changes.mapping import change_from

FIELDS = "the fields are completion_id, metadata, mode, change_id, as_of"


def test_a_mapping_is_the_change_that_its_fields_make_and_a_change_is_itself() -> None:
    fields = {"completion_id": "c1", "metadata": {"a": "b"}, "mode": "replace", "change_id": "i1", "as_of": 1e9}
    change = MetadataChange("c1", {"a": "b"}, "replace", "i1", 1e9)
    assert change_from(fields) == change
    assert change_from(MappingProxyType(fields)) == change
    assert change_from(change) is change
    assert change_from({"completion_id": "c1", "metadata": {}}) == MetadataChange("c1", {})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "a change must be a MetadataChange or a mapping, not an array"),
        (None, "a change must be a MetadataChange or a mapping, not null"),
        ({"completion_id": "c1", "metadata": {}, "label": "A"}, f"unknown field 'label'; {FIELDS}"),
        ({"metadata": {}}, "the field completion_id is missing"),
        ({"completion_id": "c1"}, "the field metadata is missing"),
        ({}, "the field completion_id is missing"),
    ],
)
def test_what_is_no_change_is_refused_in_these_words(given: object, reason: str) -> None:
    with pytest.raises(InvalidChange) as caught:
        change_from(given)
    assert str(caught.value) == reason
