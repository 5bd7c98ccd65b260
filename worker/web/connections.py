"""Connections of the web server: few and short; most end with their answer."""

import asyncio
import sys
from contextlib import suppress
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from worker.frames import forget_frames
from worker.web.seal import seal
from worker.web.trouble import Seldom

# Only a few scrapers, probes and people are expected.
_MOST_STRANGERS = 256
_MOST_KNOWN = 128
_LIFETIME_SECONDS = 15.0
# Of a reusable connection between two requests: after the first it is closed, after the second it is cut.
_IDLE_SECONDS = 75.0
_STAYING_SECONDS = 150.0
_LINGERING_SECONDS = 1.0  # reads the rest of an answered request: closing at once may lose the answer
_SAID_EVERY_SECONDS = 10.0
_MALFORMED = (HttpProcessingError, web.RequestPayloadError)


class Handler(web.RequestHandler):
    """Reads requests from one connection, and answers failures before or in their handlers."""

    def __init__(self, connections: "Connections", server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        # aiohttp would decompress a body to any size.
        super().__init__(
            server,
            loop=loop,
            lingering_time=_LINGERING_SECONDS,
            keepalive_timeout=_IDLE_SECONDS,
            auto_decompress=False,
        )
        self._connections = connections
        self.peer = ""
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, which ends an older one if there are too many."""
        super().connection_made(transport)
        self.peer = peer_name(transport.get_extra_info("peername"))
        self._connections.came(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._connections.went(self)
        self.gone.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes. If the parser itself fails, only this connection ends."""
        try:
            super().data_received(data)
        except Exception as failure:  # noqa: BLE001 -- asyncio would log it with the bytes that were sent
            self._connections.say_malformed(self.peer, failure)
            end(self)
        if self._messages and (malformed := getattr(self._messages[-1][0], "exc", None)) is not None:
            forget_frames(malformed)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer."""
        if isinstance(resp, web.HTTPException):
            forget_frames(resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_: object, exc_info: BaseException | None = None, **__: object) -> None:
        """Log a failure after the answer, such as a malformed body, without the bytes that the library quotes."""
        failure = exc_info or sys.exception()
        if isinstance(failure, _MALFORMED):
            self._connections.say_malformed(self.peer, failure)
        else:
            self._connections.say_failed(None, failure)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- the parser's message quotes what was sent
    ) -> web.StreamResponse:
        """Answer with the status alone, sealed like any other answer.

        A handler that raised is logged with its trace. Malformed HTTP gets a line without the bytes that were sent. Log
        lines of both kinds are rate-limited, because any caller can cause them at any rate.
        """
        failure = exc or sys.exception()
        if isinstance(failure, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise failure  # the client has disconnected
        if isinstance(failure, _MALFORMED):
            status = HTTPStatus.BAD_REQUEST
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            status = HTTPStatus.INTERNAL_SERVER_ERROR  # aiohttp calls a handler's TimeoutError a 504
            self._connections.say_failed(request, failure)
        else:
            self._connections.say_malformed(self.peer, failure)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, and cannot become another")
        response = web.Response(status=status, text=f"{HTTPStatus(status).phrase}\n")
        seal(response)
        return response


class Crowd:
    """A bounded set of connections; one too many ends the oldest connection of the peer that has the most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_peer: dict[str, dict[Handler, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Crowd [{self._count} connections of {len(self._of_peer)} peers]>"

    def add(self, handler: Handler) -> None:
        """Add the connection."""
        self._of_peer.setdefault(handler.peer, {})[handler] = None
        self._count += 1
        if self._count > self._most:
            own, crowded = self._of_peer[handler.peer], max(self._of_peer.values(), key=len)
            if len(own) == len(crowded) > 1:  # on a tie, the peer that opens one more
                crowded = own
            oldest = next(iter(crowded))
            self.discard(oldest)
            end(oldest)

    def discard(self, handler: Handler) -> None:
        """Remove the connection, if it is in the set."""
        of_peer = self._of_peer.get(handler.peer, {})
        if handler not in of_peer:
            return
        del of_peer[handler]
        self._count -= 1
        if not of_peer:
            del self._of_peer[handler.peer]


class Connections:
    """Makes and bounds the server's connections: a new one ends an old one, so that idle ones block no client.

    A connection is a stranger's until a request on it is permitted: a probe, or a caller that proves its right.
    Strangers never displace permitted connections. Every connection ends after a few seconds, active or not, except
    those given to `keep`.
    """

    def __init__(self) -> None:
        self._strangers = Crowd(_MOST_STRANGERS)
        self._known = Crowd(_MOST_KNOWN)
        self._ends: dict[Handler, asyncio.TimerHandle] = {}
        self._seldom = Seldom(_SAID_EVERY_SECONDS)

    def __repr__(self) -> str:
        return f"<Connections [{len(self._strangers)} strangers, {len(self._known)} known]>"

    def open(self, server: web.Server) -> Handler:
        """Return a handler for a new connection."""
        return Handler(self, server, asyncio.get_running_loop())

    def came(self, handler: Handler) -> None:
        """Register an opened connection."""
        self._strangers.add(handler)
        self._ends[handler] = asyncio.get_running_loop().call_later(_LIFETIME_SECONDS, end, handler)

    def went(self, handler: Handler) -> None:
        """Remove a closed connection."""
        self.keep(handler)

    def know(self, handler: web.RequestHandler) -> None:
        """Mark the connection as permitted, so that strangers cannot displace it."""
        assert isinstance(handler, Handler)  # noqa: S101 -- made by `open`
        if handler in self._ends:
            self._strangers.discard(handler)
            self._known.discard(handler)
            self._known.add(handler)

    def stay(self, handler: web.RequestHandler) -> None:
        """Extend the connection's life; it can still be displaced if there are too many."""
        assert isinstance(handler, Handler)  # noqa: S101 -- made by `open`
        if timer := self._ends.get(handler):
            timer.cancel()
            self._ends[handler] = asyncio.get_running_loop().call_later(_STAYING_SECONDS, end, handler)

    async def delay(self, handler: web.RequestHandler, seconds: float) -> None:
        """Let the client wait; no longer than it stays, as its request and body are kept until the answer."""
        assert isinstance(handler, Handler)  # noqa: S101 -- made by `open`
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await handler.gone.wait()

    def keep(self, handler: web.RequestHandler) -> None:
        """Never end the connection by time; the caller must bound the number of such connections."""
        assert isinstance(handler, Handler)  # noqa: S101 -- made by `open`
        self._strangers.discard(handler)
        self._known.discard(handler)
        if timer := self._ends.pop(handler, None):
            timer.cancel()

    def say_malformed(self, peer: str, failure: BaseException | None) -> None:
        """Log malformed input, without the input itself."""
        kind = type(failure).__name__
        if (more := self._seldom.unsaid("malformed")) is not None:
            structlog.get_logger().info("web.malformed", peer=peer, error=kind, more=more)

    def say_failed(self, request: web.BaseRequest | None, failure: BaseException | None) -> None:
        """Log, with its trace, a failure in a request's handler or after it."""
        if (more := self._seldom.unsaid(type(failure).__name__)) is not None:
            method, path = (request.method, request.path) if request else (None, None)
            structlog.get_logger().error("web.failed", method=method, path=path, more=more, exc_info=failure)


def end(handler: web.RequestHandler) -> None:
    """Cut the connection."""
    if handler.transport is not None:
        handler.transport.abort()


def peer_of(request: web.BaseRequest) -> str:
    """Return the peer's name by the connection's address, which is a proxy's if there is one."""
    return request.protocol.peer if isinstance(request.protocol, Handler) else ""


def peer_name(address: Any) -> str:  # noqa: ANN401 -- what the socket's family has for an address
    """Return one name for all addresses of a machine: in IPv6 it has a whole /64 network."""
    host = str(address[0]) if isinstance(address, tuple) else ""
    if ":" not in host:
        return host
    numbered = IPv6Address(host.partition("%")[0])
    if numbered.ipv4_mapped is not None:
        return str(numbered.ipv4_mapped)
    return host if numbered.is_loopback else str(IPv6Address(int(numbered) >> 64 << 64)) + "/64"
