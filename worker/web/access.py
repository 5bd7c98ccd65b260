"""Sessions, which the token opens, and checks that a request comes from the page itself."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from worker.api.endpoint import is_loopback
from worker.web.trouble import Seldom

SESSION_SECONDS = 12 * 3600
TICKET_SECONDS = 300
_SAID_EVERY_SECONDS = 1.0


def make_ticket(key: str, unix_now: float) -> str:
    """Make a ticket, which opens one session within a few minutes; needs the ticket key of `Sessions`."""
    content = f"{int(unix_now) + TICKET_SECONDS}.{secrets.token_hex(8)}"
    return f"{content}.{_signature(key.encode(), content)}"


class Sessions:
    """Signed session cookies. Forging one needs the token, and a cookie does not reveal it.

    Args:
        token: the configured token; a restart with another one ends every session. None: a random secret, so that a
            session needs a ticket.
        unix_clock: Unix time, seconds.
    """

    def __init__(self, token: str | None, unix_clock: Callable[[], float]) -> None:
        self._unix_clock = unix_clock
        self._token = (token or secrets.token_hex(32)).encode()
        self._key = hmac.digest(self._token, b"metasync session", hashlib.sha256)
        self.ticket_key = secrets.token_hex(32)  # random, or other workers would accept its tickets
        self._used: dict[str, int] = {}  # tickets and signed-out cookies, until they expire
        self._seldom = Seldom(_SAID_EVERY_SECONDS)

    def __repr__(self) -> str:
        return "<Sessions>"

    def is_token(self, shown: str) -> bool:
        """Compare with the token, in constant time."""
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self._token)

    def takes_ticket(self, shown: str) -> bool:
        """Whether this is a fresh, unused ticket; it counts as used from now on."""
        if not _is_signed(self.ticket_key.encode(), shown) or shown in self._used:
            return False
        self._use_up(shown)
        return _expires(shown) > self._unix_clock()

    def say_refused(self, peer: str) -> None:
        """Log a wrong token or ticket."""
        if (more := self._seldom.unsaid("refused")) is not None:
            structlog.get_logger().warning("web.sign_in_refused", peer=peer, more=more)

    def open(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Give the browser a cookie for half a day; over HTTPS, a secure one."""
        # The random part lets each sign-in be signed out alone.
        content = f"{int(self._unix_clock()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        response.set_cookie(
            _cookie_of(request),
            f"{content}.{_signature(self._key, content)}",
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )

    def end(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Delete the browser's cookie, and admit no copy of it any more."""
        if self._is_open(cookie := request.cookies.get(_cookie_of(request), "")):
            self._use_up(cookie)
        response.del_cookie(_cookie_of(request), httponly=True, samesite="Strict")

    def admits(self, request: web.BaseRequest) -> bool:
        """Whether the request has the bearer token, or the cookie of an open session."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        return self._is_open(request.cookies.get(_cookie_of(request), ""))

    def _is_open(self, cookie: str) -> bool:
        return _is_signed(self._key, cookie) and cookie not in self._used and _expires(cookie) > self._unix_clock()

    def _use_up(self, signed: str) -> None:
        now = self._unix_clock()
        self._used = {used: until for used, until in self._used.items() if until > now} | {signed: _expires(signed)}


def _signature(key: bytes, content: str) -> str:
    return hmac.new(key, content.encode(errors="replace"), hashlib.sha256).hexdigest()


def _is_signed(key: bytes, text: str) -> bool:
    content, _, signature = text.rpartition(".")
    return hmac.compare_digest(signature.encode(errors="replace"), _signature(key, content).encode())


def _expires(signed: str) -> int:
    """Return when a ticket or cookie expires: the signature is ours, so it begins with a number."""
    return int(signed.partition(".")[0])


def _cookie_of(request: web.BaseRequest) -> str:
    """Return the cookie's name. It contains the port, since browsers send a host's cookies to all its ports."""
    name = request.transport and request.transport.get_extra_info("sockname")
    return f"metasync-{name[1]}" if isinstance(name, tuple) else "metasync"


def names_this_machine(request: web.BaseRequest) -> bool:
    """Whether the Host header names loopback: DNS rebinding lets a foreign name point here."""
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def is_from_the_page(request: web.BaseRequest) -> bool:
    """Whether the browser's headers say that our own page makes this request, not another site or a link.

    Over plain HTTP to another machine, browsers omit Sec-Fetch-Site; every POST has an Origin.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    try:
        return urlsplit(request.headers.get("Origin", "")).netloc == request.headers.get("Host")
    except ValueError:
        return False
