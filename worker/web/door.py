"""Guards of routes: who may see the worker, and who may act on it."""

import asyncio
from collections.abc import Callable

from aiohttp import hdrs, web

from worker.web.access import Sessions, is_from_the_page, names_this_machine
from worker.web.connections import peer_of

JSON = "application/json"

_MOST_BODY_BYTES = 4096
_BODY_SECONDS = 5.0

Guard = Callable[[web.Request], None]


def admit_all(_request: web.Request) -> None:
    """Admit every request."""


def from_the_page(guard: Guard) -> Guard:
    """Restrict `guard` to requests from our own page, for routes that change something."""

    def admit(request: web.Request) -> None:
        guard(request)
        if not is_from_the_page(request):
            raise web.HTTPForbidden(text="only the page itself may ask for this\n")

    return admit


class Door:
    """Decides who may see the worker and who may act on it. Its methods are guards of routes.

    Args:
        is_open: whether no token is set, so that every user of this machine may see the worker.
    """

    def __init__(self, sessions: Sessions, *, is_open: bool) -> None:
        self._sessions = sessions
        self._is_open = is_open

    def __repr__(self) -> str:
        return f"<Door [{'open' if self._is_open else 'token'}]>"

    def signing_in(self, request: web.Request) -> None:
        """Admit callers without a session to the sign-in routes, which show nothing of the worker.

        Raises:
            HTTPForbidden: no token is set, and the Host header does not name loopback.
        """
        if self._is_open and not names_this_machine(request):
            raise web.HTTPForbidden(text="ask for 127.0.0.1 or localhost; for other names, set METASYNC_HTTP_TOKEN\n")

    def seeing(self, request: web.Request) -> None:
        """Admit callers with the token or a session; without a token, every user of this machine.

        Raises:
            HTTPForbidden: as for `signing_in`.
            HTTPUnauthorized: the caller has neither.
        """
        self.signing_in(request)
        if not self.sees(request):
            raise self._unauthorized(request, "METASYNC_HTTP_TOKEN is needed, as a bearer token")

    def sees(self, request: web.Request) -> bool:
        """Whether `seeing` admits the request."""
        return names_this_machine(request) if self._is_open else self._sessions.admits(request)

    def acting(self, request: web.Request) -> None:
        """Admit callers with the token or a session, even on an open worker: a machine may have many users.

        Raises:
            HTTPForbidden: as for `signing_in`.
            HTTPUnauthorized: the caller has neither.
        """
        self.signing_in(request)
        if not self._sessions.admits(request):
            raise self._unauthorized(request, "sign in first: `metasync page`, where the worker runs, prints a link")

    def person(self, request: web.Request) -> None:
        """Admit callers who may see the worker, and redirect others to the sign-in page.

        Raises:
            HTTPForbidden, HTTPUnauthorized: as for `seeing`.
            HTTPSeeOther: to the sign-in page.
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
            is missing, malformed, or does not arrive.
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
    """Make an answer with this content type, which includes the charset."""
    return web.Response(body=body, status=status, headers={hdrs.CONTENT_TYPE: content_type})
