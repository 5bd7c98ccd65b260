"""Who is let in: few connections, short ones, and nobody who asks too often."""

import asyncio
import time
from typing import NoReturn

from aiohttp import web

from worker.web.access import Sessions, names_this_machine

# A few scrapers, probes and people are all that is expected here.
_MOST_CONNECTIONS = 64
_LIFETIME_SECONDS = 15.0
_REQUESTS_PER_SECOND = 20
_PENALTY_SECONDS = 0.5
_MOST_BODY_BYTES = 4096
_BODY_SECONDS = 5.0

_ANYBODYS = frozenset({"/livez", "/readyz", "/healthz"})
_TO_SIGN_IN = frozenset({"/sign-in", "/page.css", "/icon.svg"})  # they show nothing of the worker
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # no-referrer would take the Origin off the page's own requests
    "X-Content-Type-Options": "nosniff",
}


class Connections:
    """Makes the server's connections, at most so many: a new one ends the oldest, so that idle ones keep nobody out.

    None lives longer than a few seconds, whatever it does or does not send, but for those that `keep` names.
    """

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._kept: set[asyncio.Protocol] = set()

    def __repr__(self) -> str:
        return f"<Connections [{len(self._server.connections)} open, {len(self._kept)} kept]>"

    def __call__(self) -> asyncio.Protocol:
        self._kept.intersection_update(self._server.connections)  # the others have ended
        passing = [each for each in self._server.connections if each not in self._kept]
        for handler in passing[: max(0, len(passing) + 1 - _MOST_CONNECTIONS)]:
            end(handler)
        handler = self._server()
        asyncio.get_running_loop().call_later(_LIFETIME_SECONDS, self._expire, handler)
        return handler

    def keep(self, handler: web.RequestHandler) -> None:
        """Let this one live on; whoever asks for that sees to it that there are few."""
        self._kept.add(handler)

    def _expire(self, handler: web.RequestHandler) -> None:
        if handler not in self._kept:
            end(handler)


def end(handler: web.RequestHandler) -> None:
    """Cut the connection."""
    if handler.transport is not None:
        handler.transport.abort()


class Door:
    """Looks at each request before anything else does.

    Args:
        sessions: what everything but the health of the worker asks for; None lets everybody of this machine see it.
    """

    def __init__(self, sessions: Sessions | None) -> None:
        self._sessions = sessions
        self._second = 0
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Door [{'open' if self._sessions is None else 'token'}]>"

    async def admit(self, request: web.BaseRequest) -> None:
        """Let the request in.

        Raises:
            HTTPUnauthorized, HTTPSeeOther: it needs the token, and does not have it; people are sent to sign in.
            HTTPForbidden: it asks for a name that is not this machine's.
            HTTPTooManyRequests: there are too many; all are answered late then, so that a flood slows down itself.
        """
        flooded = self._is_flooded()
        if flooded:
            await asyncio.sleep(_PENALTY_SECONDS)
        if request.path in _ANYBODYS:  # in a flood too: whoever asks for our health may end us when we say nothing
            return
        if flooded:
            raise web.HTTPTooManyRequests(text="too many requests\n", headers=HEADERS | {"Retry-After": "1"})
        if self._sessions is None:
            if not names_this_machine(request):
                raise web.HTTPForbidden(
                    text="ask for 127.0.0.1 or localhost; for other names, set METASYNC_HTTP_TOKEN\n", headers=HEADERS
                )
        elif request.path not in _TO_SIGN_IN and not self._sessions.admits(request):
            _turn_away(request)

    def _is_flooded(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._asked = second, 0
        self._asked += 1
        return self._asked > _REQUESTS_PER_SECOND


def _turn_away(request: web.BaseRequest) -> NoReturn:
    if request.path == "/" and "text/html" in request.headers.get("Accept", ""):
        raise web.HTTPSeeOther("/sign-in", headers=HEADERS)
    headers = HEADERS | {"WWW-Authenticate": 'Bearer realm="metasync"'}
    raise web.HTTPUnauthorized(text="METASYNC_HTTP_TOKEN is needed, as a bearer token\n", headers=headers)


async def body_of(request: web.BaseRequest) -> bytes:
    """Read a small body.

    Raises:
        HTTPRequestEntityTooLarge, HTTPLengthRequired, HTTPRequestTimeout, HTTPBadRequest: it is none, or does not come.
    """
    length = request.content_length
    if length is None:
        raise web.HTTPLengthRequired(text="say how long the body is\n", headers=HEADERS)
    if length > _MOST_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(_MOST_BODY_BYTES, length, text="that is too much\n", headers=HEADERS)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.content.readexactly(length)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come\n", headers=HEADERS) from None
    except asyncio.IncompleteReadError:
        raise web.HTTPBadRequest(text="the body was cut off\n", headers=HEADERS) from None


def answer(body: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """An answer that no browser keeps, frames or guesses about, after which the connection ends."""
    response = web.Response(body=body, status=status, headers=HEADERS | {"Content-Type": content_type})
    response.force_close()
    return response
