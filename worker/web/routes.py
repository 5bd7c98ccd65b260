"""What can be asked for, by whom and how often: one line each, and all else is refused."""

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
    """One thing that can be asked for. HEAD comes with GET.

    Args:
        guard: refuses those who may not ask for it, by an HTTPException.
        bounds: how often.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    guard: Guard
    bounds: Bounds


def application(connections: Connections, routes: Iterable[Route], *, guard: Guard, bounds: Bounds) -> web.Application:
    """The application that answers for these routes.

    Args:
        guard, bounds: of what has no route. It is refused too, as 404 or 405, but only those who may see the worker
            learn that.
    """
    there: dict[web.AbstractRoute, Route] = {}

    @web.middleware
    async def admit(request: web.Request, handler: AnyHandler) -> web.StreamResponse:
        if request.transport is None:  # to read its body now would be a RuntimeError, as if the handler were wrong
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
