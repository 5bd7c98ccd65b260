"""The transport through an aiohttp session.

It serves proxies, sessions that are handed in, and releases of aiohttp with which the direct transport was not tested.
"""

import asyncio
from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from worker.api.answer import Answer
from worker.api.connector import Use, idle_seconds, using
from worker.api.room import Room, read_content
from worker.api.transport import CONNECT_TIMEOUT_SECONDS, DROPPED, Judge, Request, is_farewell, is_unanswered

_CEIL_THRESHOLD_SECONDS: Final = 1e9  # above this, aiohttp rounds a time-out up, past a lease's end


class SessionTransport:
    """Makes requests to one origin through a session.

    With our `Connector`, it knows and chooses the connection of a request. A session that is handed in chooses by
    itself: `fresh` has no effect, and a request is never sent twice.

    Args:
        origin: such as ``https://api.openai.com``.
        owned: whether `close` closes the session.
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
        # aiohttp's time-out does not cover the wait for room.
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
            if use.reused and is_farewell(response.status, response.headers):
                raise aiohttp.ServerDisconnectedError
            # If the body is too large, leaving the response closes the connection.
            content = await read_content(response.content, response.headers, self._room)
            answer, believed = judge(response.status, response.headers, content)
            # aiohttp returns a connection to the pool at the body's end, before the answer is judged.
            use.end(idle_seconds(response.headers) if believed else 0.0)
            return answer

    async def close(self) -> None:
        """Close the session, if it is owned."""
        if self._owned:
            await self._session.close()


@lru_cache(maxsize=64)
def timeout(seconds: float) -> aiohttp.ClientTimeout:
    """The time-out in aiohttp's form."""
    connect = min(seconds, CONNECT_TIMEOUT_SECONDS)
    return aiohttp.ClientTimeout(total=seconds, sock_connect=connect, ceil_threshold=_CEIL_THRESHOLD_SECONDS)
