"""The reply to a create call as a stream: server-sent events, each with a piece of the message."""

from collections.abc import Iterator, Sequence

from worker.simulator.answers import Answer, encode
from worker.simulator.requests import JsonObject

EVENT_STREAM = "text/event-stream; charset=utf-8"
EVENT_END = b"\n\n"


def streamed(fresh: JsonObject, *, include_usage: bool, pace_seconds: float) -> Answer:
    """Return the answer that streams a reply.

    Args:
        fresh: the complete reply.
        include_usage: whether a last chunk, without choices, has the usage.
        pace_seconds: time from the first event to the last.
    """
    head = {name: fresh[name] for name in ("id", "created", "model", "service_tier", "system_fingerprint")}
    head["object"] = "chat.completion.chunk"
    chunks = [head | {"choices": [choice]} for choice in _pieces(fresh["choices"])]
    if include_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks]
        chunks.append(head | {"choices": [], "usage": fresh["usage"]})
    events = [b"data: " + encode(chunk) + EVENT_END for chunk in chunks]
    events.append(b"data: [DONE]" + EVENT_END)
    return Answer(200, b"".join(events), EVENT_STREAM, delivery="streamed", pace_seconds=pace_seconds)


def _pieces(choices: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """Yield, for each choice, its role, its words, the rest of its message, and its finish reason."""
    for choice in choices:
        message = choice["message"]
        content = message["content"]
        first = {"role": message["role"], "content": None if content is None else "", "refusal": None}
        yield _piece(choice, first)
        if content is not None:
            for word in _words(content):
                yield _piece(choice, {"content": word})
        for name in ("tool_calls", "function_call", "audio", "annotations"):
            if value := message.get(name):
                yield _piece(choice, {name: _numbered(value) if name == "tool_calls" else value})
        yield _piece(choice, {}, finish_reason=choice["finish_reason"], logprobs=choice["logprobs"])


def _piece(
    choice: JsonObject, delta: JsonObject, *, finish_reason: str | None = None, logprobs: JsonObject | None = None
) -> JsonObject:
    return {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _words(text: str) -> list[str]:
    """Split into words; each but the first keeps the space before it."""
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _numbered(tool_calls: Sequence[JsonObject]) -> list[JsonObject]:
    return [{"index": index} | tool_call for index, tool_call in enumerate(tool_calls)]
