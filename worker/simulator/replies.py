"""The reply to a create call: text, or the richer form that the request asks for."""

from base64 import b64encode
from collections.abc import Iterator

from worker.simulator.answers import RequestError
from worker.simulator.requests import JsonObject, check_metadata, json_type, missing_parameter

_MAX_CHOICES = 128
_AUDIO_LIFETIME_SECONDS = 3_600


def check_create(request: JsonObject, rejected_text: str | None) -> None:
    """Validate a create call; raise RequestError if the service would refuse it."""
    if "model" not in request:
        raise RequestError(400, "you must provide a model parameter")
    if "messages" not in request:
        raise missing_parameter("messages")
    _check_type("model", request["model"], str, "a string")
    messages = request["messages"]
    _check_type("messages", messages, list, "an array of objects")
    for index, message in enumerate(messages):
        _check_type(f"messages[{index}]", message, dict, "an object")
    if not messages:
        raise RequestError(
            400,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    count = request.get("n", 1)
    if not (isinstance(count, int) and 1 <= count <= _MAX_CHOICES):
        raise RequestError(
            400, f"Invalid value for 'n': expected 1 to {_MAX_CHOICES}.", param="n", code="invalid_value"
        )
    _check_type("stream", request.get("stream") or False, bool, "a boolean")
    if check_metadata(request.get("metadata"), rejected_text) and not request.get("store"):
        raise RequestError(400, "The 'metadata' parameter is only allowed when 'store' is enabled.", param="metadata")


def _check_type(param: str, value: object, kind: type, expected: str) -> None:
    if not isinstance(value, kind):
        raise RequestError(
            400,
            f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead.",
            param=param,
            code="invalid_type",
        )


def choices_for(request: JsonObject, text: str, created: int) -> list[JsonObject]:
    """Return the choices of the answer, in the fresh shape.

    Args:
        request: a body that passed `check_create`. ``n``, ``logprobs``, ``tools`` with a ``tool_choice``, ``functions``
            with a ``function_call``, audio among the ``modalities``, and ``web_search_options`` add their part of the
            message.
        text: of the reply.
        created: Unix time.
    """
    return [_choice(request, text, created, index) for index in range(request.get("n", 1))]


def _choice(request: JsonObject, text: str, created: int, index: int) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    finish_reason = "stop"
    if tool_call := _tool_call(request, index):
        message |= {"content": None, "tool_calls": [tool_call]}
        finish_reason = "tool_calls"
    elif function_name := _named(request.get("function_call")):
        message |= {"content": None, "function_call": {"name": function_name, "arguments": "{}"}}
        finish_reason = "function_call"
    elif _contains(request.get("modalities"), "audio"):
        message |= {"content": None, "audio": _audio(text, created, index)}
    elif "web_search_options" in request:
        message["annotations"] = [_citation(text)]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(text, request.get("top_logprobs")) if request.get("logprobs") else None,
        "finish_reason": finish_reason,
    }


def _tool_call(request: JsonObject, index: int) -> JsonObject | None:
    """Return a tool call, if the request requires one."""
    tools = request.get("tools")
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        tool: object = choice
    elif choice == "required" and isinstance(tools, list) and tools:
        tool = tools[0]
    else:
        return None
    if not isinstance(tool, dict):
        return None
    call_id = f"call_{index:024d}"
    if name := _named(tool.get("function")):
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    if name := _named(tool.get("custom")):
        return {"id": call_id, "type": "custom", "custom": {"name": name, "input": ""}}
    return None


def _named(value: object) -> str | None:
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _contains(value: object, item: str) -> bool:
    return isinstance(value, list) and item in value


def _audio(text: str, created: int, index: int) -> JsonObject:
    return {
        "id": f"audio_{index:024d}",
        "data": b64encode(text.encode()).decode(),
        "expires_at": created + _AUDIO_LIFETIME_SECONDS,
        "transcript": text,
    }


def _citation(text: str) -> JsonObject:
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": 0,
            "end_index": len(text),
            "title": "Example Domain",
            "url": "https://example.com/",
        },
    }


def _logprobs(text: str, top_logprobs: object) -> JsonObject:
    """Return the logprobs of each word, with the requested number of alternatives."""
    alternatives = top_logprobs if isinstance(top_logprobs, int) else 0
    return {"content": list(_token_logprobs(text, alternatives)), "refusal": None}


def _token_logprobs(text: str, alternatives: int) -> Iterator[JsonObject]:
    for word in text.split(" "):
        token: JsonObject = {"token": word, "bytes": list(word.encode()), "logprob": -0.25}
        yield token | {"top_logprobs": [token | {"logprob": -0.25 * rank} for rank in range(1, alternatives + 1)]}
