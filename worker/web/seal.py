"""Headers of every answer: the browser must not cache, frame or sniff it."""

from aiohttp import web

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # no-referrer would remove the Origin from the page's own requests
    "X-Content-Type-Options": "nosniff",
}


class Lasting(web.Response):
    """An answer that keeps its connection open for another request."""


def seal(response: web.StreamResponse) -> None:
    """Set the headers against caching, framing and sniffing; close the connection unless the answer is lasting."""
    response.headers.update(_HEADERS)
    if not isinstance(response, Lasting):
        response.headers["Connection"] = "close"
        response.force_close()
