"""Who is let in."""

import asyncio
from collections.abc import Callable

from aiohttp import hdrs, web

from worker.web.access import Sessions, is_from_the_page, names_this_machine
from worker.web.connections import peer_of

JSON = "application/json"

_MOST_BODY_BYTES = 4096
_BODY_SECONDS = 5.0

Guard = Callable[[web.Request], None]


def anybody(_request: web.Request) -> None:
    """Let everybody in."""


def from_the_page(guard: Guard) -> Guard:
    """Let in whom `guard` lets in, and of those only our own page: what it asks for changes something."""

    def admit(request: web.Request) -> None:
        guard(request)
        if not is_from_the_page(request):
            raise web.HTTPForbidden(text="only the page itself may ask for this\n")

    return admit


class Door:
    """Knows those who may see the worker, and those who may act. Its methods are guards of routes.

    Args:
        is_open: whether everybody of this machine may see it, and no token is set.
    """

    def __init__(self, sessions: Sessions, *, is_open: bool) -> None:
        self._sessions = sessions
        self._is_open = is_open

    def __repr__(self) -> str:
        return f"<Door [{'open' if self._is_open else 'token'}]>"

    def signing_in(self, request: web.Request) -> None:
        """Let in those who have no session yet: to see nothing of the worker.

        Raises:
            HTTPForbidden: no token is set, and the request is for a name that is not this machine's.
        """
        if self._is_open and not names_this_machine(request):
            raise web.HTTPForbidden(text="ask for 127.0.0.1 or localhost; for other names, set METASYNC_HTTP_TOKEN\n")

    def seeing(self, request: web.Request) -> None:
        """Let in those who show the token, or everybody of this machine where none is set.

        Raises:
            HTTPForbidden: as for `signing_in`.
            HTTPUnauthorized: the token is not shown.
        """
        self.signing_in(request)
        if not self._is_open and not self._sessions.admits(request):
            raise self._unauthorized(request, "METASYNC_HTTP_TOKEN is needed, as a bearer token")

    def acting(self, request: web.Request) -> None:
        """Let in those who show the token, or have signed in by a link: on one machine there are many users.

        Raises:
            HTTPForbidden: as for `signing_in`.
            HTTPUnauthorized: neither.
        """
        self.signing_in(request)
        if not self._sessions.admits(request):
            raise self._unauthorized(request, "sign in first: `metasync page`, where the worker runs, prints a link")

    def person(self, request: web.Request) -> None:
        """Let in those who may see the worker, and send people who may not to sign in.

        Raises:
            HTTPForbidden, HTTPUnauthorized: as for `seeing`.
            HTTPSeeOther: to where people sign in.
        """
        try:
            self.seeing(request)
        except web.HTTPUnauthorized:
            if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
                raise web.HTTPSeeOther("/sign-in") from None
            raise

    def _unauthorized(self, request: web.Request, text: str) -> web.HTTPUnauthorized:
        if hdrs.AUTHORIZATION in request.headers:
            self._sessions.say_refused(peer_of(request))
        return web.HTTPUnauthorized(text=f"{text}\n", headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="metasync"'})


async def body_of(request: web.Request, most_bytes: int = _MOST_BODY_BYTES) -> bytes:
    """Read a small body.

    Raises:
        HTTPRequestEntityTooLarge, HTTPLengthRequired, HTTPRequestTimeout, HTTPBadRequest, HTTPUnsupportedMediaType: it
            is none, or does not come.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(text="send the body as it is, without an encoding\n")
    length = request.content_length
    if length is None:
        raise web.HTTPLengthRequired(text="say how long the body is\n")
    if length > most_bytes:
        raise web.HTTPRequestEntityTooLarge(most_bytes, length, text="that is too much\n")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.content.readexactly(length)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come\n") from None
    except (asyncio.IncompleteReadError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="the body was cut off\n") from None


def answer(body: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """An answer of this content type, its charset included."""
    return web.Response(body=body, status=status, headers={hdrs.CONTENT_TYPE: content_type})
