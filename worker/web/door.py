"""Who is let in: few connections, short ones, and nobody who asks too often."""

import asyncio
import hmac
import time
from collections.abc import Callable

from aiohttp import web

# A few scrapers and probes are all that is expected here.
_MOST_CONNECTIONS = 64
_LIFETIME_SECONDS = 15.0
_REQUESTS_PER_SECOND = 20
_PENALTY_SECONDS = 0.5

_ANYBODYS = frozenset({"/livez", "/readyz", "/healthz"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def narrow(server: web.Server) -> Callable[[], asyncio.Protocol]:
    """Make the server's connections, at most so many: a new one ends the oldest, so that idle ones keep nobody out.

    None lives longer than a few seconds, whatever it does or does not send.
    """

    def connection() -> asyncio.Protocol:
        open_ones = list(server.connections)
        for handler in open_ones[: max(0, len(open_ones) + 1 - _MOST_CONNECTIONS)]:
            _end(handler)
        handler = server()
        asyncio.get_running_loop().call_later(_LIFETIME_SECONDS, _end, handler)
        return handler

    return connection


def _end(handler: web.RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


class Door:
    """Looks at each request before anything else does.

    Args:
        token: what everything but the health of the worker asks for; None lets everybody see it.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        self._second = 0
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Door [{'open' if self._token is None else 'token'}]>"

    async def admit(self, request: web.BaseRequest) -> None:
        """Let the request in.

        Raises:
            HTTPUnauthorized: it needs the token, and does not have it.
            HTTPTooManyRequests: there are too many; all are answered late then, so that a flood slows down itself.
        """
        flooded = self._is_flooded()
        if flooded:
            await asyncio.sleep(_PENALTY_SECONDS)
        if request.path in _ANYBODYS:  # in a flood too: whoever asks for our health may end us when we say nothing
            return
        if flooded:
            raise web.HTTPTooManyRequests(text="too many requests\n", headers=_HEADERS | {"Retry-After": "1"})
        if self._token is None:
            return
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            shown.strip().encode(errors="surrogateescape"), self._token
        ):
            headers = _HEADERS | {"WWW-Authenticate": 'Bearer realm="metasync"'}
            raise web.HTTPUnauthorized(text="METASYNC_HTTP_TOKEN is needed, as a bearer token\n", headers=headers)

    def _is_flooded(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._asked = second, 0
        self._asked += 1
        return self._asked > _REQUESTS_PER_SECOND


def answer(body: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """An answer that no browser keeps, frames or guesses about, after which the connection ends."""
    response = web.Response(body=body, status=status, headers=_HEADERS | {"Content-Type": content_type})
    response.force_close()
    return response
