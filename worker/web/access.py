"""Who a browser acts for: sessions that the token opens, and requests that come from the page itself."""

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
    """What opens one session, within a few minutes, for whoever can read the key of `Sessions`."""
    content = f"{int(unix_now) + TICKET_SECONDS}.{secrets.token_hex(8)}"
    return f"{content}.{_signature(key.encode(), content)}"


class Sessions:
    """Cookies that only whoever knows the token can make, and from which the token cannot be found.

    Args:
        token: as set; a restart with another one ends every session. None: one that nobody knows, so that all who want
            a session need a ticket.
        unix_clock: Unix time, seconds.
    """

    def __init__(self, token: str | None, unix_clock: Callable[[], float]) -> None:
        self._unix_clock = unix_clock
        self._token = (token or secrets.token_hex(32)).encode()
        self._key = hmac.digest(self._token, b"metasync session", hashlib.sha256)
        self.ticket_key = secrets.token_hex(32)  # not of the token: another worker would take the same ticket again
        self._used: dict[str, int] = {}
        self._seldom = Seldom(_SAID_EVERY_SECONDS)

    def __repr__(self) -> str:
        return "<Sessions>"

    def is_token(self, shown: str) -> bool:
        """Whether this is the token, found out in a time that says nothing about it."""
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self._token)

    def takes_ticket(self, shown: str) -> bool:
        """Whether this is a ticket that is neither used nor too old; it is used then."""
        now = self._unix_clock()
        content, _, _ = shown.rpartition(".")
        if not _is_signed(self.ticket_key.encode(), shown) or shown in self._used:
            return False
        expires = int(content.partition(".")[0])  # signed, so ours, so a number
        self._used = {used: until for used, until in self._used.items() if until > now} | {shown: expires}
        return expires > now

    def say_refused(self, peer: str) -> None:
        """Log that somebody showed what is neither the token nor a ticket."""
        if (more := self._seldom.unsaid("refused")) is not None:
            structlog.get_logger().warning("web.sign_in_refused", peer=peer, more=more)

    def open(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Let the browser in from now on, for half a day; one that came over HTTPS shows its cookie nowhere else."""
        expires = str(int(self._unix_clock()) + SESSION_SECONDS)
        response.set_cookie(
            _cookie_of(request),
            f"{expires}.{_signature(self._key, expires)}",
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )

    @staticmethod
    def end(request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Make the browser forget its cookie."""
        response.del_cookie(_cookie_of(request), httponly=True, samesite="Strict")

    def admits(self, request: web.BaseRequest) -> bool:
        """Whether the request shows the token, as a bearer token, or the cookie of a session that runs."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        cookie = request.cookies.get(_cookie_of(request), "")
        return _is_signed(self._key, cookie) and int(cookie.partition(".")[0]) > self._unix_clock()


def _signature(key: bytes, content: str) -> str:
    return hmac.new(key, content.encode(errors="replace"), hashlib.sha256).hexdigest()


def _is_signed(key: bytes, text: str) -> bool:
    content, _, signature = text.rpartition(".")
    return hmac.compare_digest(signature.encode(errors="replace"), _signature(key, content).encode())


def _cookie_of(request: web.BaseRequest) -> str:
    """The cookie's name: browsers show one host's cookies to all of its ports, where other workers may serve."""
    name = request.transport and request.transport.get_extra_info("sockname")
    return f"metasync-{name[1]}" if isinstance(name, tuple) else "metasync"


def names_this_machine(request: web.BaseRequest) -> bool:
    """Whether the address asked for is a loopback one: a name of somebody else's may be made to point here."""
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def is_from_the_page(request: web.BaseRequest) -> bool:
    """Whether a browser says that our own page makes this request: no other site's, and no link's.

    Over plain HTTP to another machine, browsers leave out Sec-Fetch-Site; Origin is there with every POST.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    try:
        return urlsplit(request.headers.get("Origin", "")).netloc == request.headers.get("Host")
    except ValueError:
        return False
