import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from worker.cli.tracing import is_wanted, unknown_exporter
from worker.engine.outcome import Outcome
from worker.engine.work import Interruption, Work
from worker.queue import Claim
from worker.tracing import around


def _work() -> Work:
    return Work(Claim("chatcmpl-1", 1, (), 0.0), 0.0, 1.0)


def _provider(sampler: Sampler = ALWAYS_ON) -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


async def test_a_claim_that_is_cancelled_ends_its_span_as_failed() -> None:
    provider, exporter = _provider()

    async def cancelled(_: Work) -> Outcome:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await around(provider.get_tracer("test"))(cancelled)(_work())
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "CancelledError"
    assert not span.events


async def test_a_claim_whose_lease_was_lost_is_not_said_to_be_done() -> None:
    provider, exporter = _provider()

    async def overtaken(work: Work) -> Outcome:
        work.interrupt(Interruption.LEASE_LOST)
        return Outcome(work.claim)

    await around(provider.get_tracer("test"))(overtaken)(_work())
    (span,) = exporter.get_finished_spans()
    shown = span.attributes or {}
    assert (shown["metasync.outcome"], shown["error.type"]) == ("lease_lost", "lease_lost")


@pytest.mark.parametrize(("sampler", "logged"), [(ALWAYS_ON, {"trace_id", "span_id"}), (ALWAYS_OFF, set())])
async def test_the_log_names_sampled_spans_alone(sampler: Sampler, logged: set[str]) -> None:
    provider, _ = _provider(sampler)

    async def applied(work: Work) -> Outcome:
        return Outcome(work.claim)

    outcome = await around(provider.get_tracer("test"))(applied)(_work())
    assert set(outcome.trace) == logged


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_the_standard_variables_turn_it_on_and_off(environment: dict[str, str], *, wanted: bool) -> None:
    assert is_wanted(environment) is wanted
    assert unknown_exporter(environment) is None


def test_an_exporter_that_is_not_ours_is_named_unless_all_is_turned_off() -> None:
    environment = {"OTEL_TRACES_EXPORTER": "Zipkin,console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    assert not is_wanted(environment)
    assert unknown_exporter(environment) == "OTEL_TRACES_EXPORTER=console,zipkin"
    assert unknown_exporter(environment | {"OTEL_SDK_DISABLED": "true"}) is None
