"""Valid changes, and the messages for invalid ones."""

from collections import OrderedDict
from typing import Any

import pytest

from worker.changes import InvalidChange, MetadataChange
from worker.changes.change import MAX_KEY_LENGTH, MAX_PAIRS, MAX_VALUE_LENGTH, folded, json_type

SECRET = "s3cret-value"
ID = "chatcmpl-9x"


def pairs(count: int) -> dict[str, str | None]:
    return {f"key{number}": "value" for number in range(count)}


@pytest.mark.parametrize(
    "fields",
    [
        {"completion_id": "a" * 256},
        {"completion_id": "A0._-"},
        {"completion_id": "nan1"},
        {"change_id": "nan1"},
        {"completion_id": "null-1"},
        {"completion_id": "completion_id.1"},
        {"metadata": {}},
        {"metadata": {"": ""}},
        {"metadata": {"k" * MAX_KEY_LENGTH: "v" * MAX_VALUE_LENGTH}},
        {"metadata": {"\U0001f600" * MAX_KEY_LENGTH: "é" * MAX_VALUE_LENGTH}},
        {"metadata": {"tab\tkey": "two\nlines \x7f"}},
        {"metadata": {"\t" * MAX_KEY_LENGTH: "\n" * MAX_VALUE_LENGTH}},
        {"metadata": {"\U0001f600\t" * 32: "\U0001f600\n" * 256}},
        {"metadata": pairs(MAX_PAIRS)},
        {"metadata": pairs(MAX_PAIRS) | {"gone": None, "gone as well": None}},
        {"metadata": dict.fromkeys(pairs(MAX_PAIRS), "two\nlines")},
        {"metadata": pairs(MAX_PAIRS), "mode": "replace"},
        {"change_id": "c"},
        {"change_id": "c" * 256},
        {"as_of": 0},
        {"as_of": 0.5},
        {"as_of": 9_999_999_999.0},
        {"change_id": None},
    ],
)
def test_values_at_the_limits_are_valid(fields: dict[str, Any]) -> None:
    change = MetadataChange(**{"completion_id": ID, "metadata": {"grade": "good"}, **fields})

    assert {name: getattr(change, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"completion_id": None}, "completion_id must be a string, not null"),
        ({"completion_id": 7}, "completion_id must be a string, not a number"),
        ({"completion_id": ""}, "completion_id '' is not one: a letter or digit"),
        ({"completion_id": ".."}, "completion_id '..' is not one"),
        ({"completion_id": "a/../b"}, "completion_id 'a/../b' is not one"),
        ({"completion_id": "a\n"}, r"completion_id 'a\n' is not one"),
        ({"completion_id": "ä"}, r"completion_id '\xe4' is not one"),
        ({"completion_id": "nan"}, "completion_id 'nan' stands for no value: the id is missing"),
        ({"completion_id": "NaN"}, "stands for no value"),
        ({"completion_id": "NULL"}, "stands for no value"),
        ({"completion_id": "None"}, "stands for no value"),
        ({"completion_id": "undefined"}, "stands for no value"),
        ({"completion_id": "NaT"}, "stands for no value"),
        ({"completion_id": "completion_id"}, "is the field's name: a header row among the changes"),
        ({"completion_id": "Completion-ID"}, "is the field's name"),
        ({"completion_id": "a" * 257}, "then up to 255 of letters, digits, '.', '_' and '-'"),
        ({"mode": "append"}, "mode must be one of merge, replace, not 'append'"),
        ({"mode": ""}, "mode must be one of merge, replace, not ''"),
        ({"mode": None}, "mode must be a string, not null"),
        ({"mode": {"grade": SECRET}}, "mode must be a string, not an object"),
        ({"metadata": None}, "metadata must be an object of strings, not null"),
        ({"metadata": [SECRET]}, "metadata must be an object of strings, not an array"),
        ({"metadata": SECRET}, "metadata must be an object of strings, not a string"),
        ({"metadata": {1: SECRET}}, "metadata keys must be strings, not a number"),
        ({"metadata": {1: 2}}, "metadata keys must be strings, not a number"),
        ({"metadata": {"gone": None, "grade": 7}}, "the value of metadata key 'grade' must be a string, not a number"),
        ({"metadata": {"k" * 65: SECRET}}, f"metadata key '{'k' * 65}' has 65 characters, more than 64"),
        ({"metadata": {"\U0001f600" * 64 + "\t": SECRET}}, "has 65 characters, more than 64"),
        ({"metadata": {"a\0b": SECRET}}, r"metadata key 'a\x00b' holds a NUL or half a surrogate pair"),
        ({"metadata": {"\ud800": SECRET}}, r"metadata key '\ud800' holds a NUL or half a surrogate pair"),
        ({"metadata": {"grade": SECRET * 50}}, "the value of metadata key 'grade' has 600 characters, more than 512"),
        ({"metadata": {"grade": "v" * 513}}, "the value of metadata key 'grade' has 513 characters, more than 512"),
        ({"metadata": {"grade": "\U0001f600" * 512 + "\n"}}, "'grade' has 513 characters, more than 512"),
        ({"metadata": {"grade": SECRET + "\0"}}, "the value of metadata key 'grade' holds a NUL"),
        ({"metadata": {"grade": SECRET + "\udfff"}}, "half a surrogate pair"),
        ({"metadata": {"grade": True}}, "the value of metadata key 'grade' must be a string, not a boolean"),
        ({"metadata": {"grade": 1.5}}, "the value of metadata key 'grade' must be a string, not a number"),
        ({"metadata": {"grade": [SECRET]}}, "the value of metadata key 'grade' must be a string, not an array"),
        ({"metadata": {"grade": {"a": SECRET}}}, "the value of metadata key 'grade' must be a string, not an object"),
        ({"metadata": {"grade": None}, "mode": "replace"}, "'grade' is null, which has no meaning in mode replace"),
        ({"metadata": pairs(17)}, "metadata sets 17 keys, more than 16"),
        ({"metadata": pairs(16) | {"k": "two\nlines"}}, "metadata sets 17 keys, more than 16"),
        ({"metadata": dict.fromkeys(pairs(18), "two\nlines")}, "metadata sets 18 keys, more than 16"),
        ({"change_id": 7}, "change_id must be a string, not a number"),
        ({"change_id": ""}, "change_id must have 1 to 256 characters, not 0"),
        ({"change_id": "c" * 257}, "change_id must have 1 to 256 characters, not 257"),
        ({"change_id": "nan"}, "change_id 'nan' stands for no value: leave it out"),
        ({"change_id": "NaT"}, "stands for no value"),
        ({"change_id": "None"}, "stands for no value"),
        ({"change_id": "undefined"}, "stands for no value"),
        ({"change_id": "c\0"}, "change_id holds a NUL or half a surrogate pair"),
        ({"as_of": True}, "as_of must be Unix time in seconds, not a boolean"),
        ({"as_of": SECRET}, "as_of must be Unix time in seconds, not a string"),
        ({"as_of": [1]}, "as_of must be Unix time in seconds, not an array"),
        ({"as_of": -1}, "as_of -1 is no time: seconds since 1970, before the year 2286"),
        ({"as_of": -0.5}, "as_of -0.5 is no time"),
        ({"as_of": 1e10}, "as_of 1e+10 is no time"),
        ({"as_of": float("nan")}, "as_of nan is no time"),
    ],
)
def test_a_broken_rule_is_named_without_any_metadata_value(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidChange) as caught:
        MetadataChange(**{"completion_id": ID, "metadata": {"grade": SECRET}, **fields})

    message = str(caught.value)
    assert reason in message
    assert SECRET not in message
    assert message.isascii() or "…" in message


def test_a_long_name_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidChange) as caught:
        MetadataChange(ID, {"k" * 100_000: "v"})

    assert len(str(caught.value)) < 200
    assert "has 100000 characters" in str(caught.value)


def test_a_change_keeps_its_own_copy_of_the_map() -> None:
    metadata: dict[str, str | None] = {"grade": "A"}
    change = MetadataChange(ID, metadata)

    metadata["grade"] = "B"
    metadata["n" * 100] = None

    assert change.metadata == {"grade": "A"}


def test_a_change_is_frozen() -> None:
    change = MetadataChange(ID, {})

    with pytest.raises(AttributeError):
        change.completion_id = "other"  # type: ignore[misc]  # this is what must fail


def test_a_change_id_that_no_store_can_keep_is_refused_in_these_words() -> None:
    for unsendable in ("c\0", "\ud800"):
        with pytest.raises(InvalidChange) as caught:
            MetadataChange(ID, {}, change_id=unsendable)
        assert str(caught.value) == "change_id holds a NUL or half a surrogate pair"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
        ("x", "a string"),
        ([], "an array"),
        ((), "an array"),
        ({}, "an object"),
        (OrderedDict(), "an object"),
        (b"x", "bytes"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_in_the_terms_of_json(value: object, name: str) -> None:
    assert json_type(value) == name


def test_names_that_people_write_differently_are_the_same() -> None:
    same = ["completionid", "Completion_ID", "completion-id", " completion id ", "\ufeffcompletion\u200bId"]
    assert {folded(name) for name in same} == {"completionid"}


def test_an_id_that_is_none_is_told_what_one_is() -> None:
    with pytest.raises(InvalidChange) as caught:
        MetadataChange("a b", {})
    assert str(caught.value) == (
        "completion_id 'a b' is not one: a letter or digit, then up to 255 of letters, digits, '.', '_' and '-'"
    )
