"""Routes with their guards and limits; all other requests are refused."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler as AnyHandler

from worker.web.bounds import Bounds
from worker.web.connections import Connections
from worker.web.door import Guard
from worker.web.seal import seal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. GET includes HEAD.

    Args:
        guard: raises an HTTPException for callers who may not use it.
        bounds: limits the rate.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    guard: Guard
    bounds: Bounds


def application(connections: Connections, routes: Iterable[Route], *, guard: Guard, bounds: Bounds) -> web.Application:
    """Make the application with these routes.

    Args:
        guard, bounds: for requests without a route. They get 404 or 405 only if the caller may see the worker; others
            learn nothing.
    """
    there: dict[web.AbstractRoute, Route] = {}

    @web.middleware
    async def admit(request: web.Request, handler: AnyHandler) -> web.StreamResponse:
        if request.transport is None:  # reading its body now would raise RuntimeError, like a fault in the handler
            raise ConnectionResetError("the client went before its request was taken up")
        route = there.get(request.match_info.route)
        await (route.bounds if route else bounds).admit(request, connections)
        (route.guard if route else guard)(request)
        return await handler(request)

    app = web.Application(middlewares=[admit])
    for route in routes:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            there[app.router.add_route(method, route.path, route.handler)] = route
    app.on_response_prepare.append(_seal)
    return app


async def _seal(_request: web.Request, response: web.StreamResponse) -> None:
    seal(response)
