"""The web surface: health for whoever restarts the worker, metrics for whoever watches it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
from aiohttp import web

from worker.api.endpoint import is_loopback
from worker.engine import Worker
from worker.queue import Queue
from worker.web.depth import Depth
from worker.web.door import Door, answer, narrow
from worker.web.metrics import CONTENT_TYPE, Metrics, Reading
from worker.web.pulse import Pulse

_STORE_TIMEOUT_SECONDS = 2.0
_CLOSING_SECONDS = 1.0
_JSON = "application/json"


class Unservable(Exception):
    """The web surface cannot be served like this; the message says why, and what to do."""


class Surface:
    """Answers for one worker.

    Args:
        token: what the metrics ask for; None shows them to everybody who can connect.
    """

    def __init__(self, worker: Worker, queue: Queue, token: str | None) -> None:
        self.pulse = Pulse()
        self._worker = worker
        self._depth = Depth(queue, _STORE_TIMEOUT_SECONDS)
        self._metrics = Metrics()
        self._door = Door(token)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            await self._door.admit(request)
            return await self._answer(request)
        except web.HTTPException as refusal:
            refusal.force_close()
            raise

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
        match request.path:
            case "/livez" | "/healthz":
                return self._live()
            case "/readyz":
                return await self._ready()
            case "/metrics":
                return await self._scrape()
            case _:
                raise web.HTTPNotFound(text="there are /livez, /readyz, /healthz and /metrics\n")

    def _live(self) -> web.Response:
        body = msgspec.json.encode({"tick_age_seconds": round(self.pulse.age_seconds, 3)})
        return answer(body, _JSON, status=503 if self.pulse.is_stuck else 200)

    async def _ready(self) -> web.Response:
        failing: dict[str, str] = {}
        await self._depth.look()
        if self._depth.error is not None:
            failing["store"] = self._depth.error
        state = self._worker.flow_state()
        if state is None:
            failing["worker"] = "it has not started yet"
        elif state.halt_reason is not None:
            failing["halted"] = state.halt_reason
        if self._worker.stopping:
            failing["draining"] = "the worker stops"
        body = msgspec.json.encode({"ready": not failing, "failing": failing})
        return answer(body, _JSON, status=503 if failing else 200)

    async def _scrape(self) -> web.Response:
        worker = self._worker
        reading = Reading(
            tallies=worker.tallies,
            totals=worker.totals,
            leases_lost=worker.leases_lost,
            flow=worker.flow_state(),
            status=await self._depth.look(),
            lag_seconds=self.pulse.lag_seconds,
            worst_lag_seconds=self.pulse.worst_lag_seconds,
        )
        return answer(self._metrics.render(reading), CONTENT_TYPE)


@asynccontextmanager
async def serving(worker: Worker, queue: Queue, *, host: str, port: int, token: str | None) -> AsyncIterator[int]:
    """Serve a worker's web surface; yields the port.

    Args:
        port: 0 takes any that is free.

    Raises:
        Unservable: nobody can listen there, or strangers could read it and no token is set.
    """
    if token is None and not is_loopback(host):
        raise Unservable(
            f"METASYNC_HTTP_HOST is {host}, which others can reach: set METASYNC_HTTP_TOKEN, or serve on 127.0.0.1"
        )
    surface = Surface(worker, queue, token)
    server = web.Server(surface.handle, access_log=None)
    try:
        listener = await asyncio.get_running_loop().create_server(narrow(server), host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unservable(f"nothing can listen on METASYNC_HTTP_HOST {host}, port {port}: {reason}") from None
    beating = asyncio.create_task(surface.pulse.beat())
    port = _port_of(listener.sockets[0])
    structlog.get_logger().info("web.started", host=host, port=port, token=token is not None)
    try:
        yield port
    finally:
        beating.cancel()
        listener.close()
        await server.shutdown(_CLOSING_SECONDS)


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
