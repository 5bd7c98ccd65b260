"""The ordinary way to the service, through an aiohttp session: for proxies, and for a session that is handed in."""

from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from worker.api.transport import CONNECT_TIMEOUT_SECONDS, Reply, Request, read_content

_CEIL_THRESHOLD_SECONDS: Final = 1e9  # above it aiohttp would round a time-out up, past a lease's end


class SessionTransport:
    """Makes requests to one origin through a session.

    Args:
        origin: such as ``https://api.openai.com``.
        owned: whether the session is closed in the end.
    """

    def __init__(self, origin: URL, session: aiohttp.ClientSession, *, owned: bool) -> None:
        self._origin = str(origin)
        self._session = session
        self._owned = owned

    def __repr__(self) -> str:
        return f"<SessionTransport {self._origin}>"

    async def exchange(self, request: Request, timeout_seconds: float) -> Reply:
        """Send a request and read its answer; see `Transport.exchange`."""
        async with self._session.request(
            request.method,
            URL(self._origin + request.target, encoded=True),
            data=request.body,
            headers=request.headers.mapping,
            timeout=timeout(timeout_seconds),
            allow_redirects=False,
        ) as response:
            # On a body that is too large, leaving the response closes the connection.
            return Reply(response.status, response.headers, await read_content(response.content))

    async def close(self) -> None:
        """Close the session, if it is our own."""
        if self._owned:
            await self._session.close()


@lru_cache(maxsize=64)
def timeout(seconds: float) -> aiohttp.ClientTimeout:
    """The time-out in aiohttp's form, to the millisecond."""
    connect = min(seconds, CONNECT_TIMEOUT_SECONDS)
    return aiohttp.ClientTimeout(total=seconds, sock_connect=connect, ceil_threshold=_CEIL_THRESHOLD_SECONDS)
