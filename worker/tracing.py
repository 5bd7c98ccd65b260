"""OpenTelemetry spans around claims and their requests; needs the extra `otel`."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_span_id, format_trace_id, set_span_in_context

from worker.api import Answer, Client, Kind
from worker.engine import Apply
from worker.engine.outcome import Outcome
from worker.engine.work import Interruption, Work

CLAIM_SPAN: Final = "claim"
URL_TEMPLATE: Final = "/chat/completions/{completion_id}"

# Attribute names; docs/tracing.md explains them. The HTTP ones follow the stable semantic conventions.
CLAIM_ATTRIBUTES: Final = (
    "metasync.completion_id",
    "metasync.changes",
    "metasync.attempt",
    "metasync.outcome",
    "error.type",
)
REQUEST_ATTRIBUTES: Final = (
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "url.full",
    "url.template",
    "server.address",
    "server.port",
    "metasync.completion_id",
    "error.type",
)

_HTTP_ERRORS = 400


class _Claim:
    """The claim of the current task: the parent span of its requests, and how often the last one was sent."""

    __slots__ = ("_last", "_resends", "_unanswered", "context")

    def __init__(self, context: Context) -> None:
        self.context = context
        self._last: object = None
        self._resends = 0
        self._unanswered = False

    def resends(self, request: object) -> int:
        """Return how often this request was sent before and failed or was throttled."""
        self._resends = self._resends + 1 if self._unanswered and request == self._last else 0
        self._last = request
        return self._resends

    def answered(self, answer: Answer) -> None:
        self._unanswered = answer.verdict.kind in {Kind.RETRY, Kind.THROTTLED}


_claim: ContextVar[_Claim | None] = ContextVar("claim", default=None)


class TracedClient(Client):
    """A client that opens a span for each request. It sends no `traceparent`: the service belongs to a third party.

    Args:
        options: see `Client`.
    """

    def __init__(self, tracer: Tracer, **options: Any) -> None:  # noqa: ANN401 -- passed on as they come
        super().__init__(**options)
        self._tracer = tracer

    async def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Answer:
        """Do what `Client` does, in a span."""
        send = super().update(completion_id, metadata, timeout_seconds=timeout_seconds, fresh=fresh)
        return await self._traced("POST", completion_id, dict(metadata), send)

    async def get(self, completion_id: str, *, timeout_seconds: float, fresh: bool = False) -> Answer:
        """Do what `Client` does, in a span."""
        send = super().get(completion_id, timeout_seconds=timeout_seconds, fresh=fresh)
        return await self._traced("GET", completion_id, None, send)

    async def _traced(self, method: str, completion_id: str, body: object, send: Awaitable[Answer]) -> Answer:
        claim = _claim.get()
        resends = claim.resends((method, completion_id, body)) if claim else 0
        span = self._start(method, completion_id, claim, resends)
        try:
            answer = await send
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        else:
            _describe(span, answer)
            if claim:
                claim.answered(answer)
            return answer
        finally:
            span.end()

    def _start(self, method: str, completion_id: str, claim: _Claim | None, resends: int) -> Span:
        endpoint = self._endpoint
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            # Leave out the base URL's query: some gateways take a key there.
            "url.full": f"{endpoint.origin}{endpoint.path}/{completion_id}",
            "url.template": URL_TEMPLATE,
            "server.address": endpoint.host,
            "metasync.completion_id": completion_id,
        }
        if endpoint.origin.port is not None:
            attributes["server.port"] = endpoint.origin.port
        if resends:
            attributes["http.request.resend_count"] = resends
        context = claim.context if claim else Context()
        name = f"{method} {URL_TEMPLATE}"
        return self._tracer.start_span(name, context, kind=SpanKind.CLIENT, attributes=attributes)


def around(tracer: Tracer) -> Callable[[Apply], Apply]:
    """Return a wrapper that opens a span for each claim and adds the span's ids to the outcome's log lines."""

    def wrap(apply: Apply) -> Apply:
        async def traced(work: Work) -> Outcome:
            claim = work.claim
            attributes: dict[str, str | int] = {
                "metasync.completion_id": claim.completion_id,
                "metasync.changes": len(claim.changes),
            }
            span = tracer.start_span(CLAIM_SPAN, Context(), attributes=attributes)
            token = _claim.set(_Claim(set_span_in_context(span, Context())))
            try:
                outcome = await apply(work)
            except BaseException as error:
                _fail(span, type(error).__name__)
                raise
            else:
                _conclude(span, work, outcome)
                return msgspec.structs.replace(outcome, trace=_ids(span))
            finally:
                _claim.reset(token)
                span.end()

        return traced

    return wrap


def _conclude(span: Span, work: Work, outcome: Outcome) -> None:
    """Record the claim's result on the span: the worst, if its changes ended differently."""
    if work.interruption is Interruption.LEASE_LOST:
        end = "lease_lost"
        _fail(span, end)
    elif outcome.dead:
        end = "dead"
        _fail(span, outcome.dead[0][1].reason)
    elif outcome.deferred:
        end = str(outcome.deferral)
    else:
        end = "applied" if outcome.applied else "unchanged" if outcome.unchanged else "superseded"
    span.set_attribute("metasync.outcome", end)
    span.set_attribute("metasync.attempt", outcome.attempts + (end in {"applied", "unchanged"}))


def _describe(span: Span, answer: Answer) -> None:
    verdict = answer.verdict
    if verdict.status is not None:
        span.set_attribute("http.response.status_code", verdict.status)
    if verdict.status is not None and verdict.status >= _HTTP_ERRORS:
        _fail(span, str(verdict.status))
    elif verdict.kind is not Kind.OK:
        _fail(span, "transport" if verdict.transport else str(verdict.kind))


def _fail(span: Span, error_type: str) -> None:
    """Mark the span as failed, without a message: it could quote data that must not be in a trace."""
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def _ids(span: Span) -> dict[str, str]:
    """Return the ids that identify the span; none if the sampler dropped it."""
    if not span.is_recording():
        return {}
    context = span.get_span_context()
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
