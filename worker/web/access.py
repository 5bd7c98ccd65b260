"""Who a browser acts for: sessions that the token opens, and requests that come from the page itself."""

import hashlib
import hmac
import time
from urllib.parse import urlsplit

from aiohttp import web

from worker.api.endpoint import is_loopback

SESSION_SECONDS = 12 * 3600
_COOKIE = "metasync"


class Sessions:
    """Cookies that only whoever knows the token can make, and from which the token cannot be found.

    Args:
        token: as set; a restart with another one ends every session.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"metasync session", hashlib.sha256)

    def __repr__(self) -> str:
        return "<Sessions>"

    def is_token(self, shown: str) -> bool:
        """Whether this is the token, found out in a time that says nothing about it."""
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self._token)

    def open(self, response: web.StreamResponse, *, secure: bool) -> None:
        """Let the browser in from now on, for half a day.

        Args:
            secure: whether the browser came over HTTPS, and is to show the cookie nowhere else.
        """
        expires = str(int(time.time()) + SESSION_SECONDS)
        response.set_cookie(
            _COOKIE,
            f"{expires}.{self._signature(expires)}",
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=secure,
        )

    @staticmethod
    def end(response: web.StreamResponse) -> None:
        """Make the browser forget its cookie."""
        response.del_cookie(_COOKIE, httponly=True, samesite="Strict")

    def admits(self, request: web.BaseRequest) -> bool:
        """Whether the request shows the token, as a bearer token, or the cookie of a session that runs."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        expires, _, signature = request.cookies.get(_COOKIE, "").partition(".")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._signature(expires).encode()):
            return False
        return int(expires) > time.time()  # signed, so ours, so a number

    def _signature(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(errors="replace"), hashlib.sha256).hexdigest()


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
