"""The proxy that the environment names, checked before anything is sent."""

from base64 import b64encode
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from worker.api.endpoint import Endpoint


def environment_proxy(endpoint: Endpoint) -> URL | None:
    """Return the proxy for an endpoint; None if there is none. Plain http stays on loopback, and uses none.

    aiohttp's own `trust_env` would also read netrc, whose login clashes with our key.

    Raises:
        ValueError: it cannot be used. The message does not show it, since it may hold a password.
    """
    if endpoint.is_plain or proxy_bypass(f"{endpoint.host}:{endpoint.origin.port}"):
        return None
    proxy = getproxies().get("https")
    if not proxy:
        return None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
        login = (url.user or "", url.password or "")
    except ValueError:
        raise ValueError("the proxy that the environment names is not a URL such as http://proxy:3128") from None
    if url.scheme not in {"http", "https"}:
        raise ValueError(f"the environment names a {url.scheme} proxy; only http and https ones can be used")
    if not url.host:
        raise ValueError("the proxy that the environment names has no host")
    if ":" in login[0] or not _is_latin1("".join(login)):
        raise ValueError("no header can carry the proxy's login: a colon in its user, or characters beyond Latin-1")
    return url


def proxy_secrets(proxy: URL) -> tuple[str, ...]:
    """Return user and password, and both as the header has them (RFC 7617); empty if the proxy wants no login."""
    user, password = proxy.user or "", proxy.password or ""
    if not (user or password):
        return ()
    return user, password, b64encode(f"{user}:{password}".encode("latin-1")).decode()


def _is_latin1(text: str) -> bool:
    """Whether aiohttp can encode the text in a login (RFC 7617, 2.1, leaves the encoding open)."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
