"""The service's operations on its stored completions: checked when the request comes, carried out at one moment."""

from collections.abc import Callable
from functools import partial

from worker.simulator.answers import Answer, RequestError, ok
from worker.simulator.completions import Created, fresh_shape, message_shapes, stored_shape
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
)
from worker.simulator.store import Store
from worker.simulator.watch import Counters

Action = Callable[[float], Answer]
"""Carries a checked call out, at this Unix time; raises RequestError where the completion is not found."""


class Operations:
    """Carries calls out on the store.

    Args:
        options: may be replaced at any time.
    """

    def __init__(self, store: Store, counters: Counters, options: Options) -> None:
        self._store = store
        self._counters = counters
        self.options = options

    def prepare(self, call: Call, body: bytes, content_type: str, *, request_id: str, lag_seconds: float) -> Action:
        """Check all of a call that can be checked without looking at the completion.

        Args:
            request_id: of the answer.
            lag_seconds: how long a completion that is created now will not be found.

        Raises:
            RequestError: the call is refused.
        """
        rejected_text = self.options.rejected_text
        match call.operation:
            case "update":
                metadata = parse_update(parse_object(body, content_type), rejected_text)
                return partial(self._update, call.completion_id, metadata)
            case "get":
                return partial(self._get, call.completion_id)
            case "list":
                return partial(self._list, parse_list(call.query))
            case "messages":
                return partial(self._messages, call.completion_id, parse_messages(call.query))
            case "delete":
                return partial(self._delete, call.completion_id)
            case "create":
                request = parse_object(body, content_type)
                check_create(request, rejected_text)
                return partial(self._create, request, request_id, lag_seconds)

    def _update(self, completion_id: str, metadata: dict[str, str] | None, now: float) -> Answer:
        completion = self._store.find(completion_id, now)
        self._store.update(completion, metadata, self.options.semantics, self.options.history)
        self._counters.updates_applied += 1
        return ok(stored_shape(completion, self.options))

    def _get(self, completion_id: str, now: float) -> Answer:
        return ok(stored_shape(self._store.find(completion_id, now), self.options))

    def _list(self, query: PageQuery, now: float) -> Answer:
        page, has_more = self._store.page(query, now)
        return _page([stored_shape(completion, self.options) for completion in page], has_more=has_more)

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

    def _create(self, request: JsonObject, request_id: str, lag_seconds: float, now: float) -> Answer:
        completion_id = f"chatcmpl-{request_id.removeprefix('req_')[:29]}"
        choices = choices_for(request, self.options.text, int(now))
        if request.get("store"):
            self._store.add(
                completion_id,
                check_metadata(request.get("metadata"), None) or {},
                model=str(request["model"]),
                now=now,
                lag_seconds=lag_seconds,
                origin=Created(request, request_id, choices),
            )
        return ok(fresh_shape(completion_id, int(now), request, choices, show_metadata=self.options.show_metadata))


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
