"""Completions as they are kept, and the shapes in which the service shows them: fresh, stored, listed."""

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
    """What is kept of a create call.

    Args:
        request: its body.
        request_id: of its answer.
        choices: as they were in its answer.
    """

    request: JsonObject
    request_id: str
    choices: Sequence[JsonObject]


@dataclass(slots=True)
class Completion:
    """One stored completion; all that is not kept here is made up when it is shown.

    Args:
        number: its place in the order of creation.
        created: Unix time, whole seconds.
        visible_at: Unix time from which it is found.
        model: that it was made by.
        metadata: never changed in place: an update puts another map here.
        origin: how it was created; None for one that was seeded.
        past: the maps before, each with the Unix time of the update that replaced it, as far as they are kept.
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
        """The metadata at this Unix time; the oldest that is kept where it was not there yet."""
        for replaced_at, metadata in self.past or ():
            if moment < replaced_at:
                return metadata
        return self.metadata


def stored_shape(completion: Completion, options: Options, metadata: Mapping[str, str]) -> JsonObject:
    """The answer of update and get, and an item of a list, with the metadata that it is to show."""
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
    """A choice of a create call's answer, as it is shown once stored."""
    message = choice["message"]
    kept = {name: value for name, value in message.items() if name not in ("refusal", "annotations")}
    return choice | {"message": {"tool_calls": None, "function_call": None} | kept}


def fresh_shape(
    completion_id: str, created: int, request: JsonObject, choices: Sequence[JsonObject], *, show_metadata: bool
) -> JsonObject:
    """The answer of a create call."""
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
    """The messages that the completion answered, in order."""
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
    """The parts of a message: each has every key of every type of part."""
    return [{"type": None, "text": None, "image_url": None} | part for part in content if isinstance(part, dict)]


def _joined(parts: Sequence[JsonObject]) -> str | None:
    """The texts of the parts as one; None where none of them is a text."""
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
    """Tokens of which each is four characters, as a rule of thumb has it."""
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
