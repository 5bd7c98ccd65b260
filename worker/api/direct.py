"""The fast transport: aiohttp's connections, TLS and parser, without the layers of its session.

An aiohttp session builds a request, a response, a writer and a timer for each call. They take two thirds of the call's
CPU time (docs/performance.md). A call of ours needs only the pool of connections and the parser.
"""

import asyncio
from collections import deque

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from worker.api.answer import Answer
from worker.api.connector import Connector, idle_seconds, protocol_of, using
from worker.api.deadlines import Deadlines
from worker.api.failure import InvalidAnswerError
from worker.api.protocol import CallProtocol
from worker.api.room import LARGEST_ANSWER_BYTES, Room, read_content
from worker.api.transport import CONNECT_TIMEOUT_SECONDS, DROPPED, Judge, Request, is_farewell, is_unanswered

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_SECONDS, ceil_threshold=2 * CONNECT_TIMEOUT_SECONDS)


class DirectTransport:
    """Speaks HTTP/1.1 to one origin, without a proxy. Create it within an event loop.

    Args:
        origin: such as ``https://api.openai.com``.
        connector: the pool of connections, which `close` closes. A call waits while all of them are in use.
    """

    def __init__(self, origin: URL, connector: Connector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        # Connections that finished calls have left, the latest last, and until when each may be used. The next call
        # takes one without the connector, whose bookkeeping costs more than the call itself. Nothing waits for the
        # connector while there are any.
        self._free: deque[tuple[Connection, CallProtocol, float]] = deque()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        # The connector only needs a request's destination, which is the same for all.
        self._destination = aiohttp.ClientRequest("GET", origin, loop=self._loop)
        self._host = f"Host: {origin.host_port_subcomponent}\r\nAccept-Encoding: gzip, deflate\r\n".encode("ascii")
        self._deadlines = Deadlines()
        self._room = Room()

    def __repr__(self) -> str:
        return f"<DirectTransport {self._destination.url.origin()} [{len(self._free)} free]>"

    async def exchange(self, request: Request, timeout_seconds: float, judge: Judge, *, fresh: bool = False) -> Answer:
        """Send a request and judge its answer; see `Transport.exchange`."""
        with self._deadlines.within(timeout_seconds):
            encoded = self._encode(request)
            free = None if fresh else self._take()
            connection, protocol, reused = free or await self._connect(fresh=fresh)
            try:
                return await self._ask(connection, protocol, encoded, judge, reused=reused)
            except DROPPED as error:
                if not (reused and is_unanswered(error)):
                    raise
            connection, protocol, _ = await self._connect(fresh=True)
            return await self._ask(connection, protocol, encoded, judge, reused=False)

    async def close(self) -> None:
        """Close the connections."""
        self._deadlines.close()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        while self._free:
            self._free.popleft()[0].release()
        await self._connector.close()

    async def _ask(
        self, connection: Connection, protocol: CallProtocol, request: bytes, judge: Judge, *, reused: bool
    ) -> Answer:
        """Make a request on an idle connection; `reused` tells whether it has carried another one."""
        try:
            try:
                message, stream = await protocol.ask(request)
                while message.code // 100 == 1 and message.code != 101:  # noqa: PLR2004 -- 1xx, but for a switch of protocols
                    message, stream = await protocol.read()
            except HttpProcessingError as error:
                raise InvalidAnswerError from error
            if reused and is_farewell(message.code, message.headers):
                raise aiohttp.ServerDisconnectedError  # noqa: TRY301 -- and the connection is closed
            content = protocol.whole(stream)
            if content is None:
                content = await read_content(stream, message.headers, self._room)
            elif len(content) > LARGEST_ANSWER_BYTES:
                content = None
            answer, believed = judge(message.code, message.headers, content)
        except BaseException:
            connection.close()
            raise
        if believed and content is not None:
            self._leave(connection, protocol, idle_seconds(message.headers))
        else:
            connection.close()
        return answer

    def _take(self) -> tuple[Connection, CallProtocol, bool] | None:
        """A free connection that may still be used; None if there is none."""
        free = self._free
        while free:
            connection, protocol, until = free.pop()
            if until > self._loop.time() and protocol.transport is not None:
                return connection, protocol, True
            connection.close()  # too old, or closed by either side
        return None

    def _leave(self, connection: Connection, protocol: CallProtocol, idle_seconds: float) -> None:
        if self._waiting:
            self._connector.limit_idle(protocol, idle_seconds)
            connection.release()
            return
        self._free.append((connection, protocol, self._loop.time() + idle_seconds))
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(idle_seconds, self._sweep)

    def _sweep(self) -> None:
        """Close the connections that were free for too long, and set the timer for the next one."""
        self._sweep_timer = None
        now = self._loop.time()
        left = deque[tuple[Connection, CallProtocol, float]]()
        for connection, protocol, until in self._free:
            if until > now:
                left.append((connection, protocol, until))
            else:
                connection.close()
        self._free = left
        if left:
            self._sweep_timer = self._loop.call_at(min(until for _, _, until in left), self._sweep)

    async def _connect(self, *, fresh: bool) -> tuple[Connection, CallProtocol, bool]:
        """A connection from the connector, its protocol, and whether it was used before."""
        if fresh and self._free:  # the connector counts free ones as in use, and might wait for one of them for ever
            self._free.popleft()[0].close()
        self._waiting += 1
        try:
            with using(fresh=fresh) as use:
                connection = await self._connector.connect(self._destination, [], _TIMEOUT)
                return connection, protocol_of(connection), use.reused
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        finally:
            self._waiting -= 1

    def _encode(self, request: Request) -> bytes:
        line = f"{request.method} {request.target} HTTP/1.1\r\n".encode("ascii")
        head, body = request.headers.encoded, request.body
        if body is None:
            return b"%b%b%b\r\n" % (line, self._host, head)
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, self._host, head, len(body), body)
