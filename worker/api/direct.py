"""The short way to the service: aiohttp's connections, TLS and parser, and none of the layers of its session.

An aiohttp session builds a request, a response, a writer and a timer for each call, and takes two thirds of the call's
CPU time for it (docs/performance.md). All that a call of ours needs is the pool of connections and the parser.
"""

import asyncio
from collections import deque

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

from worker.api.deadlines import Deadlines
from worker.api.failure import InvalidAnswerError
from worker.api.transport import CONNECT_TIMEOUT_SECONDS, LARGEST_ANSWER_BYTES, Reply, Request, read_content

# After so long without a request, a connection is the connector's again, and ends.
_IDLE_SECONDS = 15.0

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_SECONDS, ceil_threshold=2 * CONNECT_TIMEOUT_SECONDS)


class DirectTransport:
    """Speaks HTTP/1.1 to one origin, without a proxy. To be made within an event loop.

    Args:
        origin: such as ``https://api.openai.com``.
        connector: the pool of connections, which is closed in the end; a call waits while all of them are in use.
    """

    def __init__(self, origin: URL, connector: aiohttp.TCPConnector) -> None:
        self._connector = connector
        self._time = asyncio.get_running_loop().time
        # Connections that a call has just left, the latest last: the next call takes it without asking the connector,
        # whose book-keeping costs more than the call's own. Nobody waits for the connector while any is in here.
        self._free: deque[tuple[aiohttp.connector.Connection, float]] = deque()
        self._waiting = 0
        # What the connector wants of a request is where it goes, the same for all of them.
        self._destination = aiohttp.ClientRequest("GET", origin, loop=asyncio.get_running_loop())
        self._host = f"Host: {origin.host_port_subcomponent}\r\nAccept-Encoding: gzip, deflate\r\n".encode("ascii")
        self._deadlines = Deadlines()

    def __repr__(self) -> str:
        return f"<DirectTransport {self._destination.url.origin()}>"

    async def exchange(self, request: Request, timeout_seconds: float) -> Reply:
        """Send a request and read its answer; see `Transport.exchange`."""
        with self._deadlines.within(timeout_seconds):
            connection = self._take() or await self._connect()
            try:
                reply = await _exchange(connection.protocol, self._encode(request))
            except BaseException:
                connection.close()
                raise
            if reply.content is None:
                connection.close()
            else:
                self._leave(connection)
            return reply

    async def close(self) -> None:
        """Close the connections."""
        self._deadlines.close()
        while self._free:
            self._free.popleft()[0].release()
        await self._connector.close()

    def _take(self) -> aiohttp.connector.Connection | None:
        """A free connection, if there is one that is still open."""
        free = self._free
        if free and self._time() - free[0][1] > _IDLE_SECONDS:
            free.popleft()[0].close()
        while free:
            connection, _ = free.pop()
            protocol = connection.protocol
            if protocol is not None and protocol.is_connected() and not protocol.should_close:
                return connection
            connection.close()  # either side wants that, it was lost, or something came that nobody had asked for
        return None

    def _leave(self, connection: aiohttp.connector.Connection) -> None:
        if self._waiting:
            connection.release()
        else:
            self._free.append((connection, self._time()))

    async def _connect(self) -> aiohttp.connector.Connection:
        self._waiting += 1
        try:
            return await self._connector.connect(self._destination, [], _TIMEOUT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        finally:
            self._waiting -= 1

    def _encode(self, request: Request) -> bytes:
        method, target, headers, body = request
        line = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
        if body is None:
            return b"%b%b%b\r\n" % (line, self._host, headers.encoded)
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, self._host, headers.encoded, len(body), body)


async def _exchange(protocol: ResponseHandler | None, request: bytes) -> Reply:
    """One request and its answer on a connection that has nothing else to do."""
    if protocol is None or protocol.transport is None:
        raise aiohttp.ClientConnectionResetError
    protocol.set_response_params(read_until_eof=True)
    protocol.transport.write(request)
    try:
        message, stream = await protocol.read()
        while message.code // 100 == 1 and message.code != 101:  # noqa: PLR2004 -- 1xx, but for a switch of protocols
            message, stream = await protocol.read()
    except HttpProcessingError as error:
        raise InvalidAnswerError from error
    if stream.is_eof():  # as most answers are: they came in one piece with their head
        content = stream.read_nowait()
        return Reply(message.code, message.headers, content if len(content) <= LARGEST_ANSWER_BYTES else None)
    return Reply(message.code, message.headers, await read_content(stream))
