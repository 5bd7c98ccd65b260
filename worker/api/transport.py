"""The interface of a transport, which carries requests; `DirectTransport` and `SessionTransport` implement it."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import aiohttp
import msgspec

from worker.api.answer import Answer

CONNECT_TIMEOUT_SECONDS: Final = 10.0
_REQUEST_TIMEOUT: Final = 408

# How a connection fails that the other side, or something in between, gave up while it was idle.
DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)


class Headers:
    """Headers that many requests share, encoded once. Names and values are checked before."""

    __slots__ = ("encoded", "mapping")

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = dict(mapping)
        self.encoded = "".join(f"{name}: {value}\r\n" for name, value in mapping.items()).encode("ascii")

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self.mapping)}>"


class Request(msgspec.Struct, frozen=True):
    """A request.

    Args:
        target: path and query, as sent.
    """

    method: str
    target: str
    headers: Headers
    body: bytes | None = None


# Judges a response by its status, its headers, and its content, decompressed, or None if it is too large to read.
# Returns the answer, and whether the connection may be used again.
Judge = Callable[[int, Mapping[str, str], bytes | None], tuple[Answer, bool]]


class Transport(Protocol):
    """Makes requests to one service, over connections that it keeps. It follows no redirect and keeps no cookie."""

    async def exchange(self, request: Request, timeout_seconds: float, judge: Judge, *, fresh: bool = False) -> Answer:
        """Send a request, read the whole answer, and judge it before its connection is used again.

        If a used connection ends without an answer to the request, the request is sent once more on a new one: every
        request is safe to repeat.

        Args:
            judge: turns the response into an answer.
            fresh: use a new connection.

        Raises:
            aiohttp.ClientError, OSError: no complete answer came.
            TimeoutError: no answer came in time.
        """

    async def close(self) -> None:
        """Close the connections."""


def is_unanswered(error: BaseException) -> bool:
    """Whether a connection ended without a byte of an answer."""
    if isinstance(error, aiohttp.ServerDisconnectedError):  # holds the part of the answer's head that came
        return isinstance(error.message, str)
    return isinstance(error, DROPPED)


def is_farewell(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a server closes an idle connection: some say so, and that may cross a request (RFC 9110, 15.5.9)."""
    return status == _REQUEST_TIMEOUT and headers.get("Connection", "").lower() == "close"
