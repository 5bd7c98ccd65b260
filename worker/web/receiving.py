"""The HTTP server of `metasync intake`, which stores changes and applies none: health and the intake."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from worker.engine.supervisor import Supervisor
from worker.queue import Store
from worker.web.bounds import REQUESTS_ALTOGETHER, REQUESTS_PER_SECOND, UNCOUNTED, Bounds, Rate
from worker.web.connections import Connections
from worker.web.depth import STORE_TIMEOUT_SECONDS, Asked
from worker.web.door import JSON, admit_all, answer
from worker.web.health import Health
from worker.web.intake import PATH, Intake, Terms
from worker.web.listening import listening
from worker.web.routes import Route, application


def intake_routes(intake: Intake, strangers: Rate) -> tuple[Route, ...]:
    """The routes for producers; requests with a token are not limited."""
    bounds = Bounds(intake.is_known, own_rate=None, strangers=strangers)
    return (
        Route("POST", PATH, intake.post, intake.guard, bounds),
        Route("GET", "/openapi.json", _openapi, admit_all, bounds),
    )


async def _openapi(_request: web.Request) -> web.Response:
    from worker.web.openapi import document  # noqa: PLC0415 -- rarely needed

    return answer(document(), JSON)


@asynccontextmanager
async def receiving(
    queue: Store,
    terms: Terms,
    *,
    host: str,
    port: int,
    grace_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[int]:
    """Serve the intake; yields the port.

    Args:
        port: 0 for any free one.
        grace_seconds: how long requests under way may take at shutdown.

    Raises:
        Unservable: the address cannot be used.
    """
    connections = Connections()
    depth = Asked("status", queue.status, timeout_seconds=STORE_TIMEOUT_SECONDS, clock=clock)
    intake = Intake(queue, terms, depth, connections)
    health = Health(queue, clock, intake.is_known)
    routes = (*health.routes(), *intake_routes(intake, Rate(REQUESTS_PER_SECOND, REQUESTS_ALTOGETHER, clock)))
    app = application(connections, routes, guard=_nothing_else, bounds=UNCOUNTED)
    runner = web.AppRunner(app, shutdown_timeout=grace_seconds)
    await runner.setup()
    assert runner.server is not None  # noqa: S101 -- set up
    loops = Supervisor(structlog.get_logger(), lambda: None)
    loops.start("web.pulse", health.pulse.beat())
    try:
        async with listening(connections, runner.server, host, port) as at_port:
            structlog.get_logger().info("web.started", host=host, port=at_port, token=False, intake=True)
            yield at_port
    finally:
        await loops.stop()
        await runner.cleanup()


def _nothing_else(_request: web.Request) -> None:
    """Admit all to the 404 answer: it reveals nothing."""
