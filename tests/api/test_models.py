"""The documented shapes are read whole, odd ones as far as they fit, and no repr shows a conversation."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.properties import unhurried
from worker.api.models import (
    Annotation,
    ChatCompletion,
    CompletionPage,
    Deletion,
    ErrorEnvelope,
    MessagePage,
    Model,
    ModerationReport,
    ServiceError,
)
from worker.api.parsing import parse

MESSAGE = {
    "role": "assistant",
    "content": "SECRET content",
    "refusal": "SECRET refusal",
    "annotations": [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 1, "end_index": 2, "title": "SECRET", "url": "https://example.org"},
        }
    ],
    "audio": {"id": "audio_1", "data": "U0VDUkVU", "expires_at": 1738960700, "transcript": "SECRET transcript"},
    "function_call": {"name": "f", "arguments": '{"a":"SECRET"}'},
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":"SECRET"}'}},
        {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "SECRET"}},
    ],
}
TOKEN = {"token": "SECRET", "bytes": [83, 69], "logprob": -0.25}
FRESH: dict[str, Any] = {
    "id": "chatcmpl-fresh",
    "object": "chat.completion",
    "created": 1738960610,
    "model": "gpt-4o",
    "choices": [
        {
            "finish_reason": "stop",
            "index": 0,
            "logprobs": {"content": [{**TOKEN, "top_logprobs": [TOKEN]}], "refusal": [{**TOKEN, "top_logprobs": []}]},
            "message": MESSAGE,
        }
    ],
    "usage": {
        "completion_tokens": 18,
        "prompt_tokens": 13,
        "total_tokens": 31,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 1,
            "audio_tokens": 2,
            "reasoning_tokens": 3,
            "rejected_prediction_tokens": 4,
            "text_tokens": 5,
        },
        "prompt_tokens_details": {
            "audio_tokens": 1,
            "cached_tokens": 2,
            "text_tokens": 3,
            "image_tokens": 4,
            "cache_write_tokens": 5,
        },
    },
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "moderation": {
        "input": {
            "type": "moderation_results",
            "model": "omni-moderation",
            "results": [
                {
                    "type": "moderation_result",
                    "model": "omni-moderation",
                    "flagged": True,
                    "categories": {"hate": True},
                    "category_scores": {"hate": 0.9},
                    "category_applied_input_types": {"hate": ["text"]},
                }
            ],
        },
        "output": {"type": "error", "code": "unavailable", "message": "later"},
    },
}
STORED: dict[str, Any] = {
    "id": "chatcmpl-stored",
    "object": "chat.completion",
    "created": 1738960610,
    "model": "gpt-4o",
    "request_id": "req_1",
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "usage": {"total_tokens": 31, "completion_tokens": 18, "prompt_tokens": 13},
    "seed": -4944116822809979520,
    "top_p": 1.0,
    "temperature": 0.7,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "system_fingerprint": "fp_1",
    "input_user": "SECRET user",
    "service_tier": "default",
    "tools": [{"type": "function"}],
    "metadata": {"name": "SECRET"},
    "choices": [
        {
            "index": 0,
            "message": {"content": "SECRET", "role": "assistant", "tool_calls": None, "function_call": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "response_format": {"type": "json_object"},
}
STORED_MESSAGE = {
    "id": "chatcmpl-stored-0",
    "role": "user",
    "content": "SECRET",
    "name": "jane",
    "content_parts": [
        {"type": "text", "text": "SECRET", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "image_url", "image_url": {"url": "https://example.org", "detail": "low"}},
    ],
}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def plain(value: Any) -> Any:
    """The fields of a model that are set."""
    if isinstance(value, Model):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return {name: inner for name, inner in fields.items() if inner is not None}
    return [plain(item) for item in value] if isinstance(value, list) else value


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ChatCompletion, FRESH),
        (ChatCompletion, STORED),
        (
            CompletionPage,
            {"object": "list", "data": [FRESH, STORED], "first_id": "a", "last_id": "b", "has_more": True},
        ),
        (MessagePage, {"object": "list", "data": [STORED_MESSAGE], "first_id": "a", "last_id": "a", "has_more": False}),
        (Deletion, {"object": "chat.completion.deleted", "id": "chatcmpl-1", "deleted": True}),
        (ErrorEnvelope, {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}),
    ],
)
def test_every_documented_field_is_read(model: type[Model], shape: dict[str, Any]) -> None:
    assert plain(parse(encode(shape), model)) == without_null(shape)


def test_parts_have_their_types() -> None:
    completion = parse(encode(FRESH), ChatCompletion)
    assert completion is not None
    assert completion.choices is not None
    message = completion.choices[0].message
    assert message is not None
    assert message.annotations is not None
    assert isinstance(message.annotations[0], Annotation)
    assert completion.moderation is not None
    assert isinstance(completion.moderation.output, ModerationReport)


def shown_whole(shape: object, model: type[Model]) -> str:
    parsed = parse(encode(shape), model)
    pending: list[Any] = [parsed]
    shown = []
    while pending:
        value = pending.pop()
        if isinstance(value, Model):
            shown += [repr(value), f"{value}", repr(value.__rich_repr__())]
            pending += [getattr(value, name) for name in value.__struct_fields__]
        elif isinstance(value, list):
            pending += value
    return "\n".join(shown)


def test_no_repr_shows_content() -> None:
    page = {"data": [FRESH, STORED], "metadata": {"name": "SECRET"}}
    shown = shown_whole(page, CompletionPage) + shown_whole({"data": [STORED_MESSAGE]}, MessagePage)
    assert "<ChatCompletion>" in shown
    assert "<StoredMessage>" in shown
    assert "SECRET" not in shown


def test_a_field_that_does_not_fit_is_dropped_and_the_rest_is_kept() -> None:
    odd = STORED | {"created": "yesterday", "usage": {"total_tokens": "many", "prompt_tokens": 13}, "model": ["gpt"]}
    odd["choices"] = [17, {"index": "first", "message": {"role": "assistant", "content": 5, "tool_calls": "none"}}]
    odd["metadata"] = {"good": "yes", "bad": 1}
    completion = parse(encode(odd), ChatCompletion)
    assert plain(completion) == without_null(
        STORED
        | {
            "created": None,
            "model": None,
            "usage": {"prompt_tokens": 13},
            "choices": [{"message": {"role": "assistant"}}],
            "metadata": {"good": "yes"},
        }
    )


def test_unknown_and_missing_fields_are_ignored() -> None:
    completion = parse(b'{"id":"chatcmpl-1","novelty":{"deep":[1]},"choices":[{"novelty":1}]}', ChatCompletion)
    assert plain(completion) == {"id": "chatcmpl-1", "choices": [{}]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"chatcmpl-1","choices":[{"message":{"content":"half \\ud83d a pair"}}]}',
        b'{"id":"chatcmpl-1","seed":NaN}',
        b'\xef\xbb\xbf{"id":"chatcmpl-1"}',
        b'{"id":"chatcmpl-1","model":"\xff"}',
        b'{"id":"chatcmpl-1","seed":99999999999999999999999}',
    ],
)
def test_json_with_errors_that_python_accepts_is_read(body: bytes) -> None:
    completion = parse(body, ChatCompletion)
    assert completion is not None
    assert completion.id == "chatcmpl-1"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"text"', b"<html>", b'{"id":', b"\xff\xfe", b'{"a":' + b"[" * 100_000]
)
def test_json_that_is_not_an_object_gives_none(body: bytes) -> None:
    assert parse(body, ChatCompletion) is None


def test_an_error_may_be_a_bare_string_and_a_code_a_number() -> None:
    assert parse(b'{"error":"text"}', ErrorEnvelope) == ErrorEnvelope(error="text")
    numbered = parse(b'{"error":{"code":404,"message":"m","param":{}}}', ErrorEnvelope)
    assert numbered == ErrorEnvelope(error=ServiceError(code=404, message="m"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def odd_objects(model: type[Model]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(model.__struct_fields__), JSON)


@pytest.mark.parametrize("model", [ChatCompletion, CompletionPage, MessagePage, Deletion, ErrorEnvelope])
@unhurried
@given(data=st.data())
def test_any_object_is_read(model: type[Model], data: st.DataObject) -> None:
    found = data.draw(odd_objects(model) | JSON.map(lambda value: {"choices": [value], "data": [value]}))
    assert isinstance(parse(encode(found), model), model)
