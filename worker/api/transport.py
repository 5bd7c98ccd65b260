"""What carries a request to the service and its answer back; `DirectTransport` and `SessionTransport` are two ways."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp

from worker.api.answer import Answer

CONNECT_TIMEOUT_SECONDS: Final = 10.0

# How a connection ends that the other side, or something in between, had given up while it was idle.
DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)


class Headers:
    """Headers that many requests have in common, encoded once; names and values are known to be harmless."""

    __slots__ = ("encoded", "mapping")

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = dict(mapping)
        self.encoded = "".join(f"{name}: {value}\r\n" for name, value in mapping.items()).encode("ascii")

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self.mapping)}>"


class Request(NamedTuple):
    """What is asked.

    Args:
        target: path and query, as they go over the wire.
    """

    method: str
    target: str
    headers: Headers
    body: bytes | None = None


class Reply(NamedTuple):
    """What came back.

    Args:
        headers: names in any case.
        content: unpacked; None when it is too large to be read.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes | None


class Judged(NamedTuple):
    """What was made of a reply.

    Args:
        believed: the connection that it came on may be used again.
    """

    answer: Answer
    believed: bool


Judge = Callable[[Reply], Judged]


class Transport(Protocol):
    """Makes requests to one service, over connections that it keeps. No redirect is followed, no cookie kept."""

    async def exchange(self, request: Request, timeout_seconds: float, judge: Judge, *, fresh: bool = False) -> Answer:
        """Send a request, read the whole answer and judge it before its connection can be used again.

        Where a connection that was used before ends without a byte of an answer, the request is sent once more on a
        new one: all of them can be repeated.

        Args:
            judge: makes the answer of a reply.
            fresh: use a connection on which nothing was asked before.

        Raises:
            aiohttp.ClientError, OSError: no complete answer came.
            TimeoutError: nor did one in time.
        """

    async def close(self) -> None:
        """Close the connections."""


def is_unanswered(error: BaseException) -> bool:
    """Whether a connection ended without a byte of an answer, as far as its end tells."""
    if isinstance(error, aiohttp.ServerDisconnectedError):  # holds the answer's head, as far as it had come
        return isinstance(error.message, str)
    return isinstance(error, DROPPED)
