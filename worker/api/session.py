"""The ordinary way to the service, through an aiohttp session.

For proxies, for a session that is handed in, and for releases of aiohttp that the direct way was not tested with.
"""

import asyncio
from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from worker.api.answer import Answer
from worker.api.connector import Use, idle_seconds, using
from worker.api.room import Room, read_content
from worker.api.transport import CONNECT_TIMEOUT_SECONDS, DROPPED, Judge, Reply, Request, is_unanswered

_CEIL_THRESHOLD_SECONDS: Final = 1e9  # above it aiohttp would round a time-out up, past a lease's end


class SessionTransport:
    """Makes requests to one origin through a session.

    Which connection a request gets is known, and chosen, where the session's connector is our `Connector`. Of a session
    that is handed in, it is the session's business: `fresh` is not heeded, and nothing is sent a second time by us.

    Args:
        origin: such as ``https://api.openai.com``.
        owned: whether the session is closed in the end.
    """

    def __init__(self, origin: URL, session: aiohttp.ClientSession, *, owned: bool) -> None:
        self._origin = str(origin)
        self._session = session
        self._owned = owned
        self._room = Room()

    def __repr__(self) -> str:
        return f"<SessionTransport {self._origin}>"

    async def exchange(self, request: Request, timeout_seconds: float, judge: Judge, *, fresh: bool = False) -> Answer:
        """Send a request and judge its answer; see `Transport.exchange`."""
        # aiohttp's own time-out does not see the wait for room.
        async with asyncio.timeout(timeout_seconds):
            with using(fresh=fresh) as use:
                try:
                    return await self._ask(request, timeout_seconds, judge, use)
                except DROPPED as error:
                    if not (use.reused and is_unanswered(error)):
                        raise
            with using(fresh=True) as use:
                return await self._ask(request, timeout_seconds, judge, use)

    async def _ask(self, request: Request, timeout_seconds: float, judge: Judge, use: Use) -> Answer:
        async with self._session.request(
            request.method,
            URL(self._origin + request.target, encoded=True),
            data=request.body,
            headers=request.headers.mapping,
            timeout=timeout(timeout_seconds),
            allow_redirects=False,
        ) as response:
            # On a body that is too large, leaving the response closes the connection.
            content = await read_content(response.content, response.headers, self._room)
            answer, believed = judge(Reply(response.status, response.headers, content))
            # aiohttp gives a connection back at the body's end, before anything can be said about it.
            use.end(idle_seconds(response.headers) if believed else 0.0)
            return answer

    async def close(self) -> None:
        """Close the session, if it is our own."""
        if self._owned:
            await self._session.close()


@lru_cache(maxsize=64)
def timeout(seconds: float) -> aiohttp.ClientTimeout:
    """The time-out in aiohttp's form, to the millisecond."""
    connect = min(seconds, CONNECT_TIMEOUT_SECONDS)
    return aiohttp.ClientTimeout(total=seconds, sock_connect=connect, ceil_threshold=_CEIL_THRESHOLD_SECONDS)
