"""Possible replies to a request: answers in bytes and errors of the network, judged by the real code."""

import errno
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from tests.engine.virtual import START, Request
from worker.api import Answer
from worker.api.failure import failure
from worker.api.judging import judge


@dataclass(frozen=True)
class Reply:
    """An answer in bytes; `{id}` in the body is replaced by the completion id asked for."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


# The reply to a request; None lets the service do its work.
Back = Reply | BaseException | None


def says(back: Callable[[Request], Back]) -> Callable[[Request], Answer | None]:
    """Trouble for a `Service`, made from replies."""

    def trouble(request: Request) -> Answer | None:
        found = back(request)
        return None if found is None else judged(found, request)

    return trouble


def judged(back: Reply | BaseException, request: Request) -> Answer:
    """The client's answer for this reply."""
    if isinstance(back, BaseException):
        return Answer(failure(back, URL("http://proxy.test:3128")))
    verdict, shown = judge(
        back.status,
        back.headers,
        back.body.replace("{id}", request.completion_id).encode(),
        asked=request.completion_id,
        sent=(request.metadata or {}).values(),
        now=START + request.at,
    )
    return Answer(verdict, shown.metadata, whole=shown.whole, unread=shown.unread)


def error(status: int, code: str | None, message: str = "no", *, param: str | None = None, **headers: str) -> Reply:
    """A failure in the service's error format."""
    body = {"error": {"message": message, "type": "some_error", "param": param, "code": code}}
    return Reply(status, json.dumps(body), {name.replace("_", "-"): text for name, text in headers.items()})


def shows(metadata: Mapping[str, Any] | None, completion_id: str = "{id}") -> Reply:
    """A completion, with this metadata; None leaves the field out."""
    body: dict[str, Any] = {"id": completion_id, "object": "chat.completion"}
    return Reply(200, json.dumps(body if metadata is None else body | {"metadata": metadata}))


def html(status: int) -> Reply:
    """A server between us and the service answers in its place."""
    return Reply(status, f"<html><head><title>{status}</title></head><body>Blocked</body></html>")


def _key(host: str = "api.test") -> ConnectionKey:
    return ConnectionKey(host, 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)


REFUSED = aiohttp.ClientConnectorError(_key(), ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
RESET = aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer")
DROPPED = aiohttp.ServerDisconnectedError()
NO_TLS = aiohttp.ClientConnectorCertificateError(_key(), ssl.SSLCertVerificationError("certificate has expired"))
NO_NAME = aiohttp.ClientConnectorDNSError(_key(), socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
TUNNEL_REFUSED = aiohttp.ClientHttpProxyError(
    aiohttp.RequestInfo(URL("https://api.test"), "CONNECT", {}, URL("https://api.test")),  # type: ignore[arg-type]  # no headers are looked at
    (),
    status=407,
)

BAD_KEY = error(401, "invalid_api_key", "Incorrect API key provided")
NO_SCOPE = error(401, None, "You have insufficient permissions for this operation. Missing scopes: api.write")
NOT_THERE = error(404, "not_found", "Completion {id} not found", param="completion_id")
THROTTLED = error(429, "rate_limit_exceeded", "Rate limit reached", retry_after="1")
FIREWALL = html(403)
BODY_DROPPED = error(400, "missing_required_parameter", "Missing required parameter: 'metadata'.", param="metadata")
