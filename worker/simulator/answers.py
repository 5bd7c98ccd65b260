"""Answers as values, and the service's error envelope with its original messages."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

import msgspec

encode = msgspec.json.Encoder().encode

JSON = "application/json"
HTML = "text/html"

PROCESSING_TIME = "OpenAI-Processing-Ms"

Delivery = Literal["whole", "cut_off", "dropped", "reset", "duplicate", "shifted", "streamed"]

NO_ANSWER = 0
"""The status of a request whose client gets no complete answer."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a request.

    Args:
        status: `NO_ANSWER` if the client gets none.
        headers: in addition to the content type and the headers of every answer.
        delivery: ``cut_off`` omits half of the body and closes the connection. ``dropped`` only closes it. ``reset``
            closes it with a TCP RST. ``duplicate`` sends the answer twice. ``shifted`` sends it again as the answer to
            the connection's next request, whose own answer goes to the one after it, and so on. ``streamed`` sends the
            body's events one by one.
        pace_seconds: time from the first event of a stream to the last.
        gateway: whether a gateway in front of the service sends it, without the service's headers.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    delivery: Delivery = "whole"
    pace_seconds: float = 0.0
    gateway: bool = False

    @property
    def arrives(self) -> bool:
        """Whether the client gets a complete answer."""
        return self.delivery not in ("cut_off", "dropped", "reset")


class RequestError(Exception):
    """The request is refused; the arguments are those of the service's error envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code

    def answer(self) -> Answer:
        """The envelope."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return Answer(self.status, encode({"error": error}))


def ok(value: object) -> Answer:
    """Return a 200 with this value."""
    return Answer(200, encode(value))


def not_found(completion_id: str) -> RequestError:
    """Return the 404, which is the same for a deleted, an invisible and an unknown completion."""
    return RequestError(404, f"Completion {completion_id} not found", param="completion_id", code="not_found")


def unknown_url(method: str, path: str) -> Answer:
    """Return the 404 for an unknown URL: OpenAI's envelope, Azure's, or a proxy's page."""
    if path.startswith("/v1/"):
        return RequestError(404, f"Invalid URL ({method} {path})").answer()
    if path.startswith("/openai/"):
        return Answer(404, encode({"error": {"code": "404", "message": "Resource not found"}}), gateway=True)
    return page(HTTPStatus.NOT_FOUND)


def method_not_allowed(method: str, path: str) -> Answer:
    """Return the 405 for a known URL with an unknown method."""
    return RequestError(405, f"Not allowed to {method} on {path}.", code="method_not_supported").answer()


def no_key() -> RequestError:
    return RequestError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
        "auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def bad_key(key: str) -> RequestError:
    """Return the 401 for a wrong key; like the service's, the message shows both ends of the key."""
    return RequestError(401, f"Incorrect API key provided: {key[:8]}***{key[-4:]}.", code="invalid_api_key")


def missing_scope() -> RequestError:
    return RequestError(401, "You have insufficient permissions for this operation. Missing scopes: model.request.")


def forbidden() -> RequestError:
    return RequestError(
        403,
        "Country, region, or territory not supported",
        kind="request_forbidden",
        code="unsupported_country_region_territory",
    )


def quota_exhausted(code: str) -> RequestError:
    return RequestError(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        kind="insufficient_quota",
        code=code,
    )


def throttled(code: str, requests_per_minute: float) -> RequestError:
    if code == "slow_down":
        message = "Too many requests in a short time. Slow down, hold the rate for a while, then raise it gradually."
    else:
        message = f"Rate limit reached for requests. Limit: {requests_per_minute:g} / min."
    return RequestError(429, message, kind="requests", code=code)


def internal_error() -> RequestError:
    return RequestError(
        500, "The server had an error while processing your request. Sorry about that!", kind="server_error"
    )


def refused(status: int) -> RequestError:
    """Return a refusal that says no more than its status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 -- the class of server errors
    return RequestError(status, "The request could not be processed.", kind=kind)


def overloaded() -> RequestError:
    return RequestError(
        503,
        "The server is currently overloaded with other requests. Sorry about that!",
        kind="service_unavailable_error",
        code="server_is_overloaded",
    )


def page(status: HTTPStatus, server: str = "nginx") -> Answer:
    """Return the HTML page of a server in front of the service."""
    title = f"{status} {status.phrase}"
    body = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(status, body.encode(), HTML, gateway=True)
