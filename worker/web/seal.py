"""How every answer leaves: as nothing that a browser keeps, frames or guesses about."""

from aiohttp import web

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # no-referrer would take the Origin off the page's own requests
    "X-Content-Type-Options": "nosniff",
}


class Lasting(web.Response):
    """An answer that does not end its connection: another request may follow."""


def seal(response: web.StreamResponse) -> None:
    """Have no browser keep, frame or guess about this answer, and its connection end with it unless it is lasting."""
    response.headers.update(_HEADERS)
    if not isinstance(response, Lasting):
        response.headers["Connection"] = "close"
        response.force_close()
