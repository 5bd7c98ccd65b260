"""The service's operations on stored completions: validated on arrival, carried out atomically later."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from worker.simulator.answers import Answer, RequestError, ok
from worker.simulator.completions import Created, fresh_shape, message_shapes, stored_shape
from worker.simulator.models import dated
from worker.simulator.options import Options
from worker.simulator.replies import check_create, choices_for
from worker.simulator.requests import (
    Call,
    JsonObject,
    PageQuery,
    check_metadata,
    parse_list,
    parse_messages,
    parse_object,
    parse_update,
    trimmed,
)
from worker.simulator.store import Store
from worker.simulator.streams import streamed
from worker.simulator.watch import Counters

Action = Callable[[float], Answer]
"""Carries out a validated call at this Unix time; raises RequestError if the completion is not found."""


@dataclass(frozen=True, slots=True)
class Times:
    """The random times of one call, in seconds.

    Args:
        lag_seconds: how long a completion created now stays invisible.
        stale_seconds: the age of the metadata that a read shows.
        stream_seconds: how long a streamed reply takes.
    """

    lag_seconds: float = 0.0
    stale_seconds: float = 0.0
    stream_seconds: float = 0.0


class Operations:
    """Carries out calls on the store.

    Args:
        options: can be replaced at any time.
    """

    def __init__(self, store: Store, counters: Counters, options: Options) -> None:
        self._store = store
        self._counters = counters
        self.options = options

    def prepare(self, call: Call, body: bytes, content_type: str, times: Times, request_id: str) -> Action:
        """Validate a call as far as possible without the completion.

        Args:
            times: the random times of this call.
            request_id: of the answer.

        Raises:
            RequestError: the call is refused.
        """
        rejected_text = self.options.rejected_text
        match call.operation:
            case "update":
                metadata = parse_update(parse_object(body, content_type), rejected_text)
                return partial(self._update, call.completion_id, metadata)
            case "get":
                return partial(self._get, call.completion_id, times)
            case "list":
                return partial(self._list, parse_list(call.query), times)
            case "messages":
                return partial(self._messages, call.completion_id, parse_messages(call.query))
            case "delete":
                return partial(self._delete, call.completion_id)
            case "create":
                request = parse_object(body, content_type)
                if call.deployment:
                    request["model"] = call.deployment
                check_create(request, rejected_text)
                request["model"] = dated(request["model"])
                return partial(self._create, request, request_id, times)

    def _update(self, completion_id: str, metadata: dict[str, str] | None, now: float) -> Answer:
        options = self.options
        completion = self._store.find(completion_id, now)
        self._store.update(
            completion,
            None if metadata is None else trimmed(metadata, options.trim_values),
            options.semantics,
            history=options.history,
            replaced_at=now if options.stale_reads_seconds else None,
        )
        self._counters.updates_applied += 1
        return ok(stored_shape(completion, options, completion.metadata))

    def _get(self, completion_id: str, times: Times, now: float) -> Answer:
        completion = self._store.find(completion_id, now)
        return ok(stored_shape(completion, self.options, completion.metadata_at(now - times.stale_seconds)))

    def _list(self, query: PageQuery, times: Times, now: float) -> Answer:
        as_of = now - times.stale_seconds
        page, has_more = self._store.page(query, now, as_of)
        shapes = [stored_shape(completion, self.options, completion.metadata_at(as_of)) for completion in page]
        return _page(shapes, has_more=has_more)

    def _messages(self, completion_id: str, query: PageQuery, now: float) -> Answer:
        messages = message_shapes(self._store.find(completion_id, now), self.options)
        if query.descending:
            messages.reverse()
        if query.after is not None:
            messages = _after(messages, query.after)
        return _page(messages[: query.limit], has_more=len(messages) > query.limit)

    def _delete(self, completion_id: str, now: float) -> Answer:
        self._store.delete(self._store.find(completion_id, now))
        return ok({"object": "chat.completion.deleted", "id": completion_id, "deleted": True})

    def _create(self, request: JsonObject, request_id: str, times: Times, now: float) -> Answer:
        options = self.options
        completion_id = f"chatcmpl-{request_id.removeprefix('req_')[:29]}"
        choices = choices_for(request, options.text, int(now))
        stream = bool(request.get("stream"))
        if request.get("store"):
            self._store.add(
                completion_id,
                trimmed(check_metadata(request.get("metadata"), None) or {}, options.trim_values),
                model=request["model"],
                now=now,
                lag_seconds=times.lag_seconds + (times.stream_seconds if stream else 0.0),
                origin=Created(request, request_id, choices),
            )
        fresh = fresh_shape(completion_id, int(now), request, choices, show_metadata=options.show_metadata)
        if not stream:
            return ok(fresh)
        stream_options = request.get("stream_options")
        include_usage = isinstance(stream_options, dict) and bool(stream_options.get("include_usage"))
        return streamed(fresh, include_usage=include_usage, pace_seconds=times.stream_seconds)


def _after(messages: list[JsonObject], message_id: str) -> list[JsonObject]:
    ids = [message["id"] for message in messages]
    if message_id not in ids:
        raise RequestError(400, f"No message found with id '{message_id}'.", param="after", code="invalid_value")
    return messages[ids.index(message_id) + 1 :]


def _page(data: list[JsonObject], *, has_more: bool) -> Answer:
    return ok(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": has_more,
        }
    )
