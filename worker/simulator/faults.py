"""The kinds of fault: what each one answers, and whether the request is carried out before."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from msgspec.structs import replace

from worker.simulator import answers
from worker.simulator.answers import JSON, NO_ANSWER, Answer, Delivery, RequestError, encode, ok, page
from worker.simulator.completions import Completion, stored_shape
from worker.simulator.delay import Delay
from worker.simulator.hints import retry_after
from worker.simulator.kinds import Fault, FaultKind
from worker.simulator.options import Options
from worker.simulator.requests import Call
from worker.simulator.store import Store

NOTHING = Answer(NO_ANSWER, delivery="dropped")
"""The connection is closed without a word."""

_CLOUDFLARE = "cloudflare"


@dataclass(frozen=True, slots=True)
class Scene:
    """A request that goes wrong.

    Args:
        now: Unix time.
        answer: what it would be answered, where it was carried out.
    """

    call: Call
    options: Options
    store: Store
    now: float
    answer: Answer = NOTHING


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Args:
        reply: what is answered.
        done: the request is carried out first. One that is refused is answered as ever.
        waits: how many seconds pass before the answer; infinity: until the client or the simulator gives up.
    """

    reply: Callable[[Scene], Answer]
    done: bool = False
    waits: Callable[[Options], Delay | float] | None = None


def _always(answer: Answer) -> Callable[[Scene], Answer]:
    return lambda _: answer


def _json(status: int, value: object) -> Answer:
    """What a gateway that speaks JSON makes up."""
    return Answer(status, encode(value), gateway=True)


def _delivered(delivery: Delivery) -> Callable[[Scene], Answer]:
    return lambda scene: replace(scene.answer, delivery=delivery)


def _overloaded(scene: Scene) -> Answer:
    answer = answers.overloaded().answer()
    seconds = scene.options.overloaded_retry_after_seconds
    return answer if seconds is None else replace(answer, headers=retry_after("seconds", seconds, scene.now)[0])


def _error_200(scene: Scene) -> Answer:
    return RequestError(
        200, "The request could not be processed.", kind="server_error", code=scene.options.error_200_code
    ).answer()


def _wrapped_404(scene: Scene) -> Answer:
    message = f"upstream: Completion {scene.call.completion_id} not found"
    return _json(404, {"error": {"message": message, "code": "404"}})


def _hidden_metadata(scene: Scene) -> Answer:
    if scene.answer.content_type != JSON:
        return scene.answer
    value = msgspec.json.decode(scene.answer.body)
    for shown in (value, *value.get("data", ())):
        shown.pop("metadata", None)
    return replace(scene.answer, body=encode(value))


def _foreign(scene: Scene) -> Answer:
    other = scene.store.neighbour(scene.call.completion_id, scene.now)
    if other is None:
        metadata = {"belongs_to": "another"}
        other = Completion("chatcmpl-another", 0, int(scene.now), scene.now, scene.options.model, metadata)
    return ok(stored_shape(other, scene.options, other.metadata))


KINDS: Mapping[FaultKind, Kind] = {
    "internal_error": Kind(_always(answers.internal_error().answer())),
    "bad_gateway": Kind(_always(page(HTTPStatus.BAD_GATEWAY, _CLOUDFLARE))),
    "overloaded": Kind(_overloaded),
    "quota": Kind(lambda scene: answers.quota_exhausted(scene.options.quota_code).answer()),
    "unauthorized": Kind(_always(answers.bad_key("").answer())),
    "forbidden": Kind(_always(answers.forbidden().answer())),
    "proxy_auth": Kind(
        _always(
            replace(
                page(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "squid"),
                headers={"Proxy-Authenticate": 'Basic realm="proxy"'},
            )
        ),
    ),
    "misdirected": Kind(_always(page(HTTPStatus.MISDIRECTED_REQUEST))),
    "bare_string": Kind(_always(Answer(500, b'{"error":"Internal server error"}'))),
    "html_400": Kind(_always(page(HTTPStatus.BAD_REQUEST))),
    "html_403": Kind(_always(page(HTTPStatus.FORBIDDEN, _CLOUDFLARE))),
    "html_404": Kind(_always(page(HTTPStatus.NOT_FOUND))),
    "bare_404": Kind(_always(_json(404, {"detail": "Not Found"}))),
    "wrapped_404": Kind(_wrapped_404),
    "empty_object": Kind(_always(_json(200, {}))),
    "status_ok": Kind(_always(_json(200, {"status": "ok"}))),
    "error_200": Kind(_error_200),
    "dropped": Kind(_always(NOTHING)),
    "reset": Kind(_always(replace(NOTHING, delivery="reset"))),
    "hang": Kind(_always(NOTHING), waits=lambda _: math.inf),
    "late": Kind(lambda scene: scene.answer, done=True, waits=lambda o: o.late_seconds),
    "cut_off": Kind(_delivered("cut_off"), done=True),
    "malformed": Kind(
        lambda scene: replace(scene.answer, body=scene.answer.body[: len(scene.answer.body) // 2]),
        done=True,
    ),
    "empty": Kind(lambda scene: replace(scene.answer, body=b""), done=True),
    "no_content": Kind(_always(Answer(204, gateway=True)), done=True),
    "hidden_metadata": Kind(_hidden_metadata, done=True),
    "foreign": Kind(_foreign, done=True),
    "duplicate": Kind(_delivered("duplicate"), done=True),
    "shifted": Kind(_delivered("shifted"), done=True),
}


def kind_of(fault: Fault) -> Kind:
    """The kind that was ordered, or one for the answer that was."""
    then = fault.then
    return Kind(_always(then)) if isinstance(then, Answer) else KINDS[then]
