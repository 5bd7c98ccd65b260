"""Stored completions, and the JSON shapes in which the service shows them: fresh, stored, listed."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.simulator.options import Options
from worker.simulator.requests import JsonObject

FINGERPRINT = "fp_50cad350e4"
_PROMPT = "Write a haiku about AI."
_NO_REQUEST: JsonObject = {}

# Odd multipliers spread consecutive numbers over all seeds and request ids, each of them used once.
_SEED_STEP = 0x9E37_79B9_7F4A_7C15
_REQUEST_ID_STEP = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835


@dataclass(frozen=True, slots=True)
class Created:
    """The stored part of a create call.

    Args:
        request: its body.
        request_id: of its answer.
        choices: those of its answer.
    """

    request: JsonObject
    request_id: str
    choices: Sequence[JsonObject]


@dataclass(slots=True)
class Completion:
    """One stored completion; other fields are generated when it is shown.

    Args:
        number: its place in the order of creation.
        created: Unix time, whole seconds.
        visible_at: Unix time from which requests find it.
        model: the model that generated it.
        metadata: never changed in place; an update replaces the map.
        origin: how it was created; None for one that was seeded.
        past: earlier maps that are still kept, each with the Unix time of the update that replaced it.
    """

    id: str
    number: int
    created: int
    visible_at: float
    model: str
    metadata: Mapping[str, str]
    origin: Created | None = None
    past: deque[tuple[float, Mapping[str, str]]] | None = None

    def metadata_at(self, moment: float) -> Mapping[str, str]:
        """Return the metadata at this Unix time, or the oldest one that is kept."""
        for replaced_at, metadata in self.past or ():
            if moment < replaced_at:
                return metadata
        return self.metadata


def stored_shape(completion: Completion, options: Options, metadata: Mapping[str, str]) -> JsonObject:
    """Return the shape of update, get and list items, with this metadata."""
    origin = completion.origin
    asked = origin.request if origin else _NO_REQUEST
    choices = [stored_choice(choice) for choice in origin.choices] if origin else [_seeded_choice(options.text)]
    shape: JsonObject = {
        "object": "chat.completion",
        "id": completion.id,
        "model": completion.model,
        "created": completion.created,
        "request_id": origin.request_id if origin else _request_id(completion.number),
        "tool_choice": asked.get("tool_choice"),
        "usage": _usage(_messages(completion, options), choices),
        "seed": asked.get("seed", _seed(completion.number)),
        "top_p": asked.get("top_p", 1.0),
        "temperature": asked.get("temperature", 1.0),
        "presence_penalty": asked.get("presence_penalty", 0.0),
        "frequency_penalty": asked.get("frequency_penalty", 0.0),
        "system_fingerprint": FINGERPRINT,
        "input_user": asked.get("user"),
        "service_tier": "default",
        "tools": asked.get("tools"),
        "choices": choices,
        "response_format": asked.get("response_format"),
    }
    if options.show_metadata:
        shape["metadata"] = metadata
    return shape


def stored_choice(choice: JsonObject) -> JsonObject:
    """Convert a choice of a create call's answer to its stored shape."""
    message = choice["message"]
    kept = {name: value for name, value in message.items() if name not in ("refusal", "annotations")}
    return choice | {"message": {"tool_calls": None, "function_call": None} | kept}


def fresh_shape(
    completion_id: str, created: int, request: JsonObject, choices: Sequence[JsonObject], *, show_metadata: bool
) -> JsonObject:
    """Return the shape of a create call's answer."""
    shape: JsonObject = {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": request["model"],
        "choices": choices,
        "usage": _usage(_as_messages(request), choices)
        | {
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if show_metadata and request.get("metadata"):
        shape["metadata"] = request["metadata"]
    return shape


def message_shapes(completion: Completion, options: Options) -> list[JsonObject]:
    """Return the messages that the completion answered, in order."""
    shapes = []
    for index, message in enumerate(_messages(completion, options)):
        content = message.get("content")
        parts = _parts(content) if isinstance(content, list) else None
        shapes.append(
            {
                "id": f"{completion.id}-{index}",
                "role": message.get("role"),
                "content": content if parts is None else _joined(parts),
                "name": message.get("name"),
                "content_parts": parts,
            }
        )
    return shapes


def _parts(content: Sequence[object]) -> list[JsonObject]:
    """Return the parts of a message; each part has the keys of all part types."""
    return [{"type": None, "text": None, "image_url": None} | part for part in content if isinstance(part, dict)]


def _joined(parts: Sequence[JsonObject]) -> str | None:
    """Join the texts of the parts; None if no part is a text."""
    texts = [part["text"] for part in parts if isinstance(part["text"], str)]
    return "".join(texts) if texts else None


def _messages(completion: Completion, options: Options) -> Sequence[JsonObject]:
    if completion.origin:
        return _as_messages(completion.origin.request)
    return ({"role": "system", "content": _PROMPT}, {"role": "user", "content": options.text})


def _as_messages(request: JsonObject) -> Sequence[JsonObject]:
    messages: Sequence[JsonObject] = request["messages"]
    return messages


def _usage(messages: Sequence[JsonObject], choices: Sequence[JsonObject]) -> JsonObject:
    """Estimate the usage with the rule of thumb of four characters per token."""
    prompt = sum(_tokens(message.get("content")) for message in messages)
    completion = sum(_tokens(choice["message"]["content"]) for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _tokens(content: object) -> int:
    return 3 + len(content) // 4 if isinstance(content, str) else 3


def _seeded_choice(text: str) -> JsonObject:
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text, "tool_calls": None, "function_call": None},
        "finish_reason": "stop",
        "logprobs": None,
    }


def _seed(number: int) -> int:
    """A 64-bit integer with a sign."""
    return (number * _SEED_STEP + _SEED_STEP) % 2**64 - 2**63


def _request_id(number: int) -> str:
    return f"req_{(number * _REQUEST_ID_STEP + _REQUEST_ID_STEP) % 2**128:032x}"
