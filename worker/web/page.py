"""The page for people: its files, signing in, and actions on dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog
from aiohttp import hdrs, web

from worker.queue import DeadLetters, DeadSelection, QueueError
from worker.web.access import Sessions
from worker.web.bounds import Rate
from worker.web.connections import Connections, peer_of
from worker.web.door import JSON, answer, body_of
from worker.web.live import Live
from worker.web.orders import Order, refusal
from worker.web.routes import Handler
from worker.web.view import View, json_bytes

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_LETTERS_SHOWN = 50
_LETTERS_SECONDS = 5.0
_WRONG_TOKEN_SECONDS = 0.5


class Page:
    """Answers the browser's requests.

    Args:
        connections: those of an open page and of an action live longer than others.
        wrong_guesses: limits how many wrong tokens are checked.
    """

    def __init__(
        self,
        queue: DeadLetters,
        view: View,
        live: Live,
        sessions: Sessions,
        connections: Connections,
        *,
        wrong_guesses: Rate,
    ) -> None:
        self._queue = queue
        self._view = view
        self._live = live
        self._sessions = sessions
        self._connections = connections
        self._wrong_guesses = wrong_guesses
        self._acting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Page [{self._live!r}]>"

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream updates to an open page."""
        self._connections.keep(request.protocol)
        return await self._live.serve(request, is_known=self._sessions.admits(request))

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Tell the page whether its user has signed in, and so may act."""
        return _said({"acts": self._sessions.admits(request)})

    async def sign_in_form(self, request: web.Request) -> web.StreamResponse:
        """Show the sign-in form, unless the user has a session."""
        if self._sessions.admits(request):
            return _see("/")
        return _file("sign-in.html")

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token or a ticket for a cookie. Wrong ones never delay a right one."""
        sent = parse_qs((await body_of(request)).decode(errors="replace"))
        token, ticket = (sent.get(name, [""])[0].strip() for name in ("token", "ticket"))
        peer = peer_of(request)
        if self._sessions.is_token(token) or self._sessions.takes_ticket(ticket):
            structlog.get_logger().info("web.signed_in", peer=peer, by="ticket" if ticket else "token")
            response = _see("/")
            self._sessions.open(request, response)
            return response
        self._sessions.say_refused(peer)
        is_looked_at = self._wrong_guesses.takes(peer)
        await self._connections.delay(request.protocol, _WRONG_TOKEN_SECONDS)
        if not is_looked_at:
            raise web.HTTPTooManyRequests(text="too many wrong tokens\n", headers={hdrs.RETRY_AFTER: "1"})
        return _see("/sign-in#expired" if ticket else "/sign-in#refused")

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """End the session."""
        response = _see("/")
        self._sessions.end(request, response)
        return response

    async def letters(self, request: web.Request) -> web.StreamResponse:
        """Return the oldest letters of a reason or of a batch."""
        query = request.rel_url.query
        selection = DeadSelection(reason=query.get("reason"), batch=query.get("batch"))
        shown: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(_LETTERS_SECONDS):
                async for letter in self._queue.dead_letters(selection):
                    shown.append(self._view.letter(letter))
                    if len(shown) == _LETTERS_SHOWN:
                        break
        except TimeoutError:
            return _said({"error": "the store did not answer in time"}, status=503)
        except QueueError as error:
            return _said({"error": str(error)}, status=503)
        return _said({"letters": shown})

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Replay dead letters."""
        return await self._act(request, self._replay)

    async def purge(self, request: web.Request) -> web.StreamResponse:
        """Purge dead letters."""
        return await self._act(request, self._purge)

    async def _act(
        self, request: web.Request, carry_out: Callable[[Order, str], Awaitable[dict[str, int]]]
    ) -> web.StreamResponse:
        if request.content_type != JSON:
            raise web.HTTPUnsupportedMediaType(text="say it as JSON\n")
        try:
            order = msgspec.json.decode(await body_of(request), type=Order)
            order.selection()
        except ValueError as error:  # msgspec.ValidationError is one
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        if self._acting.locked():
            return _said({"error": "another action is running: wait until it is done"}, status=409)
        async with self._acting:
            self._connections.keep(request.protocol)  # many letters take a while
            try:
                if reason := await refusal(self._queue, order):
                    return _said({"error": reason}, status=409)
                return _said(await carry_out(order, peer_of(request)))
            except QueueError as error:
                return _said({"error": str(error)}, status=503)
            finally:
                self._view.forget_letters()

    async def _replay(self, order: Order, peer: str) -> dict[str, int]:
        revived = await self._queue.retry_dead(order.selection())
        counts = {"kept": revived.kept, "superseded": revived.superseded}
        _log_done("web.replayed", order, peer=peer, letters=revived.retried, **counts)
        return {"replayed": revived.retried, **counts}

    async def _purge(self, order: Order, peer: str) -> dict[str, int]:
        purged = await self._queue.purge_dead(order.selection())
        _log_done("web.purged", order, peer=peer, letters=purged)
        return {"purged": purged}


def file(name: str) -> Handler:
    """Return a handler that answers with this file of the page."""

    async def show(_request: web.Request) -> web.StreamResponse:
        return _file(name)

    return show


def _log_done(event: str, order: Order, *, peer: str, **counts: int) -> None:
    structlog.get_logger().info(
        event,
        peer=peer,
        number=order.number,
        reason=order.reason,
        all=order.all,
        newest=order.newest,
        older_than_seconds=order.older_than_seconds,
        **counts,
    )


def _said(what: object, *, status: int = 200) -> web.Response:
    return answer(json_bytes(what), JSON, status=status)


def _see(path: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def _file(name: str) -> web.Response:
    return answer(_content(name), _TYPES[name.rpartition(".")[2]])


@cache
def _content(name: str) -> bytes:
    return files("worker.web").joinpath("page", name).read_bytes()
