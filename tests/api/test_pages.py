"""Pages of a list: odd ones are read, and no repr shows their content."""

import json

import msgspec
import pytest

from worker.api.pages import Listed, read_fields, read_page, read_replies

SECRET = "what somebody said"


def _item(**fields: object) -> bytes:
    return json.dumps({"data": [{"id": "c-1", "created": 7, "choices": SECRET} | fields], "has_more": True}).encode()


def _one(body: bytes) -> Listed:
    page = read_page(body)
    assert page is not None
    assert page.has_more is True
    (item,) = page.items
    assert SECRET not in repr(page) + repr(item)
    return item


@pytest.mark.parametrize(
    ("metadata", "shown", "whole"),
    [
        ({"a": "b"}, {"a": "b"}, True),
        ({}, {}, True),
        (None, {}, True),
        ({"a": "b", "n": 1}, {"a": "b"}, False),
        ({"a": "b", "half": "\ud800"}, {"a": "b"}, False),
        ("text", None, False),
    ],
)
def test_values_that_are_no_metadata_are_left_out_and_the_rest_is_not_whole(
    metadata: object,
    shown: object,
    whole: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    item = _one(_item(metadata=metadata))
    assert (item.id, item.created, item.metadata, item.whole) == ("c-1", 7, shown, whole)


def test_an_item_without_metadata_shows_none() -> None:
    assert _one(_item()).metadata is None


def test_an_item_that_is_no_object_or_has_no_id_is_nameless() -> None:
    assert _one(b'{"data": ["text"], "has_more": true}').id is None
    assert _one(_item(id=None, metadata={})).id is None
    assert _one(_item(id=5, metadata={})).id is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": null}', b"<html>", b'{"data": [{"id": "c-1"'])
def test_a_body_that_is_not_a_page_gives_none(body: bytes) -> None:
    assert read_page(body) is None


def test_json_that_only_python_accepts_is_read() -> None:
    item = _one(b'\xef\xbb\xbf{"data": [{"id": "c-1", "metadata": {"a": "b"}, "top_p": NaN}], "has_more": true}')
    assert item.metadata == {"a": "b"}


def test_has_more_is_none_if_the_page_does_not_say() -> None:
    page = read_page(b'{"data": [], "has_more": "yes"}')
    assert page is not None
    assert page.has_more is None


def test_read_fields_returns_the_fields_that_are_there() -> None:
    body = b'{"id": "c-1", "model": "gpt", "usage": {"total_tokens": 3}, "choices": []}'
    found = read_fields(body, ["usage", "model", "seed"])
    assert {name: msgspec.json.decode(value) for name, value in found.items()} == {
        "model": "gpt",
        "usage": {"total_tokens": 3},
    }


@pytest.mark.parametrize("text", ["plain", "\ud800 half", "\u2028"])
def test_replies_with_odd_text_are_read_and_can_be_written(text: str) -> None:
    message = {"role": "assistant", "content": text, "number": 2**70}
    body = json.dumps(
        {"id": "c-1", "choices": [{"index": 0, "message": message}, {"index": 1}], "seed": 2**70}
    ).encode()
    (reply,) = read_replies(body)
    assert json.loads(msgspec.json.encode({"messages": [reply]}))["messages"][0]["role"] == "assistant"
    assert msgspec.json.encode(read_fields(body, ["seed"]))
    assert read_replies(b'{"choices": null}') == read_replies(b"{}") == read_replies(b"nonsense") == []


def test_numbers_that_no_encoder_writes_do_not_break_a_page() -> None:
    item = _one(b'{"data": [{"id": "c-1", "metadata": {"a": "\\ud800"}, "seed": 1%b}], "has_more": true}' % (b"0" * 40))
    assert (item.metadata, item.whole) == ({}, False)
