"""An OTLP/HTTP collector on loopback that keeps what it receives."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def attributes(pairs: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""

    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return getattr(pair.value, kind) if kind else None

    return {pair.key: value(pair) for pair in pairs}


@dataclass
class Collector:
    """What came, and whether answers are held back."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    answering: threading.Event = field(default_factory=threading.Event)

    def resources(self) -> list[dict[str, Any]]:
        """Of each batch."""
        return [attributes(of.resource.attributes) for body in self.bodies for of in _parsed(body).resource_spans]

    def spans(self) -> list[Span]:
        """All that came."""
        return [
            span
            for body in self.bodies
            for resource in _parsed(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _parsed(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return request


@contextmanager
def running_collector(*, hanging: bool = False) -> Iterator[Collector]:
    """A collector on a free port, until the end.

    Args:
        hanging: take requests and never answer.
    """
    collector = Collector()
    if not hanging:
        collector.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked.set()
            collector.answering.wait(60)
            collector.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A worker that is gone does not wait for its answer."""

    server = Server(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        collector.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()
