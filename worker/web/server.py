"""The web surface: health for whoever restarts the worker, metrics for whoever watches it, a page for people."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog
from aiohttp import web

from worker.api.endpoint import is_loopback
from worker.engine import Worker
from worker.queue import Queue, QueueError
from worker.web.access import Sessions
from worker.web.depth import Asked
from worker.web.door import HEADERS, Connections, Door, answer
from worker.web.live import Live
from worker.web.metrics import CONTENT_TYPE, Metrics, Reading
from worker.web.page import JSON, Page
from worker.web.pulse import Pulse
from worker.web.view import View

_STORE_TIMEOUT_SECONDS = 2.0
_CLOSING_SECONDS = 1.0
_SAMPLE_SECONDS = 10.0


class Unservable(Exception):
    """The web surface cannot be served like this; the message says why, and what to do."""


class Surface:
    """Answers for one worker.

    Args:
        token: what all but health asks for; None shows it to everybody of this machine.
        show_values: whether metadata values are shown.
    """

    def __init__(self, worker: Worker, queue: Queue, token: str | None, *, show_values: bool) -> None:
        self.pulse = Pulse()
        self.server = web.Server(self._handle, access_log=None)
        self.connections = Connections(self.server)
        self._worker = worker
        self._depth = Asked(queue.status, _STORE_TIMEOUT_SECONDS)
        self._metrics = Metrics()
        self._view = View(
            worker,
            queue,
            self._depth,
            timeout_seconds=_STORE_TIMEOUT_SECONDS,
            signs_in=token is not None,
            show_values=show_values,
        )
        self._events = Live(self._view.document)
        sessions = None if token is None else Sessions(token)
        self._door = Door(sessions)
        self._page = Page(queue, self._view, self._events, sessions, self.connections)

    async def run(self) -> None:
        """Do, for ever, what no request asks for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pulse.beat())
            group.create_task(self._events.run())
            group.create_task(self._sample())

    async def close(self) -> None:
        """End all connections; those whose answer is under way get a moment."""
        self._events.close()
        await self.server.shutdown(_CLOSING_SECONDS)

    async def _sample(self) -> None:
        while True:
            with suppress(QueueError, TimeoutError):  # the page and the metrics say loudly enough that it is away
                async with asyncio.timeout(_STORE_TIMEOUT_SECONDS):
                    await self._view.sample()
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            await self._door.admit(request)
            return await self._answer(request)
        except web.HTTPException as refusal:
            refusal.force_close()
            raise

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return await self._page.post(request)
        if request.method not in {"GET", "HEAD"}:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD", "POST"], headers=HEADERS)
        match request.path:
            case "/livez" | "/healthz":
                return self._live()
            case "/readyz":
                return await self._ready()
            case "/metrics":
                return await self._scrape()
            case _:
                return await self._page.get(request)

    def _live(self) -> web.Response:
        body = msgspec.json.encode({"tick_age_seconds": round(self.pulse.age_seconds, 3)})
        return answer(body, JSON, status=503 if self.pulse.is_stuck else 200)

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
        return answer(body, JSON, status=503 if failing else 200)

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
async def serving(
    worker: Worker, queue: Queue, *, host: str, port: int, token: str | None, show_values: bool = False
) -> AsyncIterator[int]:
    """Serve a worker's web surface; yields the port.

    Args:
        port: 0 takes any that is free.
        show_values: whether the page shows metadata values.

    Raises:
        Unservable: nobody can listen there, or strangers could read it and no token is set.
    """
    if token is None and not is_loopback(host):
        raise Unservable(
            f"METASYNC_HTTP_HOST is {host}, which others can reach: set METASYNC_HTTP_TOKEN, or serve on 127.0.0.1"
        )
    surface = Surface(worker, queue, token, show_values=show_values)
    try:
        listener = await asyncio.get_running_loop().create_server(surface.connections, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unservable(f"nothing can listen on METASYNC_HTTP_HOST {host}, port {port}: {reason}") from None
    running = asyncio.create_task(surface.run())
    port = _port_of(listener.sockets[0])
    structlog.get_logger().info("web.started", host=host, port=port, token=token is not None)
    try:
        yield port
    finally:
        running.cancel()
        listener.close()
        await surface.close()


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
