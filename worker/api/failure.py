"""The verdict of a call without a complete response."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus

import aiohttp
from yarl import URL

from worker.api.explain import readable
from worker.api.trust import trouble_with_authorities
from worker.api.verdict import Halt, Kind, Verdict


class InvalidAnswerError(aiohttp.ClientError):
    """The bytes received are not HTTP."""


class UnaskedAnswerError(aiohttp.ClientError):
    """Bytes came on a new connection before anything was asked."""


# What aiohttp raises for failures of the network and of the service.
FAILURES = (aiohttp.ClientError, OSError)

_TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_ENCODING = re.compile(r"content-encoding: (\w+)")
# After one of these, a proxy may let the next request through.
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})

# The first match counts. The texts are ours, because an exception's text may quote the answer.
_TEXTS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name {error.host} was not resolved: {reason}"),
    (aiohttp.ClientConnectorCertificateError, "the certificate of {error.host}:{error.port} is not trusted: {reason}"),
    (aiohttp.ClientSSLError, "no TLS connection to {error.host}:{error.port}: {reason}"),
    (aiohttp.ClientProxyConnectionError, "no connection to the proxy {error.host}:{error.port}: {reason}"),
    (aiohttp.ClientConnectorError, "no connection to {error.host}:{error.port}: {reason}"),
    (aiohttp.ClientHttpProxyError, "the proxy answered HTTP {error.status}"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientPayloadError, "the answer was cut off"),
    (UnaskedAnswerError, "an answer came before anything was asked"),
    (InvalidAnswerError, "the answer is not valid HTTP"),
    (aiohttp.ClientResponseError, "the answer is not valid HTTP"),
    (aiohttp.ServerDisconnectedError, "the connection was dropped"),
    (aiohttp.ClientOSError, "the connection was dropped"),
    (ConnectionError, "the connection was dropped"),
)


def failure(error: BaseException, proxy: URL | None = None) -> Verdict:
    """Judge a request that ended in an exception of the network.

    Args:
        error: one of `FAILURES`. Other exceptions are programming errors, and propagate.
        proxy: the proxy of the request, if any.
    """
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Verdict(Kind.HALTED, error="the base URL cannot be used", halt=Halt.WRONG_URL)
    if isinstance(error, aiohttp.ClientHttpProxyError) and _is_refusal(error.status):
        text = f"the proxy refuses to connect: HTTP {error.status}"
        return Verdict(Kind.HALTED, error=text, halt=Halt.PROXY, transport=True)
    return Verdict(Kind.RETRY, error=readable(_explain(error, proxy)), transport=True)


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in _PASSING  # noqa: PLR2004 -- the class that blames the request


def _explain(error: BaseException, proxy: URL | None) -> str:
    for cause in _causes(error):
        if getattr(cause, "errno", None) in _TOO_MANY_FILES:
            return "too many open files: allow this process more of them (ulimit -n), or this machine"
        # By name: aiohttp does not promise where these classes are.
        match type(cause).__name__:
            case "ContentEncodingError":
                encoding = _ENCODING.search(str(cause))
                return f"the answer is packed as {encoding[1] if encoding else 'something'}, and cannot be unpacked"
            case "LineTooLong":
                return "the answer has a header that is too long"
            case "BadHttpMessage" if "Too many headers" in str(cause):
                return "the answer has too many headers"
    if isinstance(error, aiohttp.ClientConnectorDNSError) and proxy is not None and error.host == proxy.host:
        return f"the name of the proxy {error.host} was not resolved: {_reason(error)}"
    template = next((text for kind, text in _TEXTS if isinstance(error, kind)), "the request failed: {reason}")
    is_distrust = isinstance(error, aiohttp.ClientConnectorCertificateError)
    trouble = trouble_with_authorities() if is_distrust else None
    return "; ".join(filter(None, (template.format(error=error, reason=_reason(error)), trouble)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _reason(error: BaseException) -> str:
    """The system's text for the failure, or else the name of its class."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not isinstance(cause, ssl.SSLError | socket.gaierror):
        return os.strerror(number)  # asyncio's text repeats the address
    told = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return str(told or type(cause).__name__)
