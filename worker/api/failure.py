"""What it means that no answer came."""

import aiohttp

from worker.api.explain import readable
from worker.api.verdict import Halt, Kind, Verdict


class InvalidAnswerError(aiohttp.ClientError):
    """What came back is not HTTP."""


# What aiohttp raises for all that the network and the service can do to a request.
FAILURES = (aiohttp.ClientError, OSError)

# The first that fits counts. Texts are ours: an exception's own may quote the answer.
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
    (InvalidAnswerError, "the answer is not valid HTTP"),
    (aiohttp.ClientResponseError, "the answer is not valid HTTP"),
    (aiohttp.ServerDisconnectedError, "the connection was dropped"),
    (aiohttp.ClientOSError, "the connection was dropped"),
    (ConnectionError, "the connection was dropped"),
)


def failure(error: BaseException) -> Verdict:
    """Judge a request that ended in an exception of the network.

    Args:
        error: one of `FAILURES`; others are programming errors, and not for this function to hide.
    """
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Verdict(Kind.HALTED, error="the base URL cannot be used", halt=Halt.WRONG_URL)
    template = next((text for kind, text in _TEXTS if isinstance(error, kind)), "the request failed: {reason}")
    return Verdict(Kind.RETRY, error=readable(template.format(error=error, reason=_reason(error))), transport=True)


def _reason(error: BaseException) -> str:
    """The system's words for what went wrong, else the name of its kind."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    told = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return str(told or type(cause).__name__)
