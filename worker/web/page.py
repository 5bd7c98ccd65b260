"""The page for people: its files, signing in, dead letters and what can be done about them."""

import asyncio
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog
from aiohttp import web

from worker.queue import Queue, QueueError
from worker.queue.base import DeadSelection
from worker.web.access import Sessions, is_from_the_page
from worker.web.door import HEADERS, Connections, answer, body_of
from worker.web.live import Live
from worker.web.view import View

JSON = "application/json"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/sign-in": ("sign-in.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_ACTIONS = frozenset({"/replay", "/purge"})
_LETTERS_SHOWN = 50
_LETTERS_SECONDS = 5.0
_WRONG_TOKEN_SECONDS = 0.5


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters a person means: exactly one of these is given."""

    number: int | None = None
    reason: str | None = None
    all: bool = False

    def selection(self) -> DeadSelection:
        """Say it as the queue understands it.

        Raises:
            ValueError: none is given, or several are.
        """
        if [self.number is not None, self.reason is not None, self.all].count(True) != 1:
            raise ValueError("say a number, a reason, or all")
        return DeadSelection(None if self.number is None else [self.number], reason=self.reason)


class Page:
    """Answers what a browser asks for.

    Args:
        sessions: None where no token is needed.
        connections: an open page's, and an action's, live longer than others.
    """

    def __init__(
        self, queue: Queue, view: View, live: Live, sessions: Sessions | None, connections: Connections
    ) -> None:
        self._queue = queue
        self._view = view
        self._live = live
        self._sessions = sessions
        self._connections = connections
        self._signing_in = asyncio.Lock()
        self._acting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Page [{self._live!r}]>"

    async def get(self, request: web.BaseRequest) -> web.StreamResponse:
        """Show something."""
        path = request.path
        if path == "/events":
            self._connections.keep(request.protocol)
            return await self._live.serve(request)
        if path == "/letters":
            return await self._letters(request)
        if path == "/sign-in" and (self._sessions is None or self._sessions.admits(request)):
            raise web.HTTPSeeOther("/", headers=HEADERS)
        if path in _FILES:
            name, content_type = _FILES[path]
            return answer(_file(name), content_type)
        raise web.HTTPNotFound(text="there are /, /livez, /readyz, /healthz and /metrics\n", headers=HEADERS)

    async def post(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do something that a person asked for on the page."""
        path = request.path
        if path not in _ACTIONS | {"/sign-in", "/sign-out"}:
            raise web.HTTPMethodNotAllowed("POST", ["GET", "HEAD"], headers=HEADERS)
        if not is_from_the_page(request):
            raise web.HTTPForbidden(text="only the page itself may ask for this\n", headers=HEADERS)
        if path == "/sign-out":
            return self._sign_out()
        if path == "/sign-in":
            return await self._sign_in(request)
        return await self._act(request)

    async def _sign_in(self, request: web.BaseRequest) -> web.StreamResponse:
        shown = parse_qs((await body_of(request)).decode(errors="replace")).get("token", [""])[0]
        if self._sessions is None:
            return _see("/")
        async with self._signing_in:  # one guess at a time, and few a second
            if not self._sessions.is_token(shown.strip()):
                await asyncio.sleep(_WRONG_TOKEN_SECONDS)
                return _see("/sign-in#refused")
        response = _see("/")
        self._sessions.open(response, secure=request.headers.get("X-Forwarded-Proto") == "https")
        return response

    @staticmethod
    def _sign_out() -> web.StreamResponse:
        response = _see("/sign-in")
        Sessions.end(response)
        return response

    async def _letters(self, request: web.BaseRequest) -> web.StreamResponse:
        """The oldest letters of a reason."""
        reason = request.rel_url.query.get("reason")
        shown: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(_LETTERS_SECONDS):
                async for letter in self._queue.dead_letters(DeadSelection(reason=reason)):
                    shown.append(self._view.letter(letter))
                    if len(shown) == _LETTERS_SHOWN:
                        break
        except TimeoutError:
            return _said({"error": "the store did not answer in time"}, status=503)
        except QueueError as error:
            return _said({"error": str(error)}, status=503)
        return _said({"letters": shown})

    async def _act(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.content_type != JSON:
            raise web.HTTPUnsupportedMediaType(text="say it as JSON\n", headers=HEADERS)
        try:
            order = msgspec.json.decode(await body_of(request), type=Order)
            selection = order.selection()
        except ValueError as error:  # msgspec's are
            raise web.HTTPBadRequest(text=f"{error}\n", headers=HEADERS) from None
        if self._acting.locked():
            return _said({"error": "something else is being done; wait for it"}, status=409)
        async with self._acting:
            self._connections.keep(request.protocol)  # many letters take a while
            try:
                return _said(await self._carry_out(request.path, order, selection))
            except QueueError as error:
                return _said({"error": str(error)}, status=503)
            finally:
                self._view.forget_letters()

    async def _carry_out(self, path: str, order: Order, selection: DeadSelection) -> dict[str, int]:
        what = {"number": order.number, "reason": order.reason, "all": order.all}
        if path == "/purge":
            purged = await self._queue.purge_dead(selection)
            structlog.get_logger().info("web.purged", **what, letters=purged)
            return {"purged": purged}
        revived = await self._queue.retry_dead(selection)
        structlog.get_logger().info("web.replayed", **what, letters=revived.retried, kept=revived.kept)
        return {"replayed": revived.retried, "kept": revived.kept}


def _said(what: object, *, status: int = 200) -> web.Response:
    return answer(msgspec.json.encode(what), JSON, status=status)


def _see(path: str) -> web.Response:
    response = answer(b"", "text/plain", status=303)
    response.headers["Location"] = path
    return response


@cache
def _file(name: str) -> bytes:
    return files("worker.web").joinpath("page", name).read_bytes()
