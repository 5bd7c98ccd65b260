"""Tracing, configured by OpenTelemetry's standard variables: set up at the start, flushed at the end."""

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from worker.api import Client
from worker.engine import Apply

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

# A collector that hangs must not keep the process alive: spans not accepted by then are lost.
FLUSH_SECONDS = 3.0

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Tracing:
    """The parts of a worker that tracing replaces.

    Args:
        make_client: takes the client's arguments.
        around: wraps the function that applies a claim; None to leave it unchanged.
    """

    make_client: Callable[..., Client] = Client
    around: Callable[[Apply], Apply] | None = None


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables turn tracing on."""
    if _is_disabled(environment):
        return False
    if exporters := _exporters(environment):
        return "otlp" in exporters
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def unknown_exporter(environment: Mapping[str, str]) -> str | None:
    """Return the variable if it names only unsupported exporters."""
    exporters = _exporters(environment)
    if _is_disabled(environment) or "otlp" in exporters or exporters <= {"none"}:
        return None
    return f"OTEL_TRACES_EXPORTER={','.join(sorted(exporters))}"


def _is_disabled(environment: Mapping[str, str]) -> bool:
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _exporters(environment: Mapping[str, str]) -> set[str]:
    names = environment.get("OTEL_TRACES_EXPORTER", "").lower().split(",")
    return {name.strip() for name in names} - {""}


def unknown_protocol(environment: Mapping[str, str]) -> str | None:
    """Return the variable if it names an unsupported protocol."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "").strip().lower()
        if protocol:
            return None if protocol == "http/protobuf" else f"{name}={protocol}"
    return None


@asynccontextmanager
async def tracing() -> AsyncIterator[Tracing]:
    """Trace, if the environment asks for it."""
    if exporter := unknown_exporter(os.environ):
        structlog.get_logger().warning("tracing.unavailable", error=f"{exporter} is not supported: use otlp")
    if not is_wanted(os.environ):
        yield Tracing()
        return
    # Its log lines come with every batch, and may quote a token or a password.
    logging.getLogger("opentelemetry").propagate = False
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    if protocol := unknown_protocol(os.environ):
        structlog.get_logger().warning(
            "tracing.unavailable", error=f"{protocol} is not supported: use OTLP over http/protobuf"
        )
        yield Tracing()
        return
    try:
        provider = _provider()
    except ImportError:
        structlog.get_logger().warning("tracing.unavailable", error="install metasync with its extra otel")
        yield Tracing()
        return
    except Exception as error:  # noqa: BLE001 -- a malformed variable must not stop the work
        structlog.get_logger().warning("tracing.unavailable", error=f"OTEL_ variables: {type(error).__name__}")
        yield Tracing()
        return
    from worker.tracing import TracedClient, around  # noqa: PLC0415 -- needs the extra

    tracer = provider.get_tracer("metasync", version("metasync"))

    def make_client(**options: object) -> Client:
        return TracedClient(tracer, **options)

    try:
        yield Tracing(make_client, around(tracer))
    finally:
        await _flush(provider)


def _provider() -> "TracerProvider":
    """Make the SDK's provider, which reads sampler, limits, batching, endpoint and headers from its variables."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415

    class Exporter(OTLPSpanExporter):
        """Logs once when spans get lost, and once when exports work again."""

        failing = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            try:
                result = super().export(spans)
            except Exception:  # noqa: BLE001 -- only spans are lost
                result = SpanExportResult.FAILURE
            failed = result is not SpanExportResult.SUCCESS
            if failed and not self.failing:
                structlog.get_logger().warning("tracing.export_failed", error="the OTLP endpoint accepts no spans")
            elif self.failing and not failed:
                structlog.get_logger().info("tracing.export_resumed")
            self.failing = failed
            return result

    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Exporter()))
    return provider


def _resource() -> "Resource":
    """Return the traces' resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    found = dict(Resource.create().attributes)
    if str(found.get("service.name", "")).startswith("unknown_service"):
        del found["service.name"]
    ours = {
        "service.name": "metasync",
        "service.version": version("metasync"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource(ours | found)


async def _flush(provider: "TracerProvider") -> None:
    """Send the remaining spans for a limited time, in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def shut_down() -> None:
        with suppress(Exception):
            provider.shutdown()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="tracing-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await done.wait()
    except TimeoutError:
        structlog.get_logger().warning("tracing.unflushed", error="the OTLP endpoint took too long: spans are lost")
