"""What carries a request to the service and its answer back; `DirectTransport` and `SessionTransport` are two ways."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp

# The largest stored completions, with log probabilities and Base64 audio, stay well below.
LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
CONNECT_TIMEOUT_SECONDS: Final = 10.0


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
        content: unpacked; None when it is larger than `LARGEST_ANSWER_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes | None


class Transport(Protocol):
    """Makes requests to one service, over connections that it keeps. No redirect is followed, no cookie kept."""

    async def exchange(self, request: Request, timeout_seconds: float) -> Reply:
        """Send a request once and read the whole answer.

        Raises:
            aiohttp.ClientError, OSError: no complete answer came.
            TimeoutError: nor did one in time.
        """

    async def close(self) -> None:
        """Close the connections."""


async def read_content(stream: aiohttp.StreamReader) -> bytes | None:
    """The whole body; None when it is too large: then the connection is of no use any more."""
    chunks, size = list[bytes](), 0
    while chunk := await stream.readany():
        size += len(chunk)
        if size > LARGEST_ANSWER_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
