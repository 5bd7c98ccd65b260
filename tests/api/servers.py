"""Small servers on loopback that answer with bytes to order."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Handler = Callable[["Connection"], Awaitable[None]]


@dataclass
class Connection:
    """One connection that a client opened."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def receive(self) -> bytes:
        """Read one whole request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class Server:
    """A running server and what it saw."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def response(
    body: bytes = b'{"id":"chatcmpl-1","metadata":{"k":"v"}}',
    *,
    status: str = "200 OK",
    headers: bytes = b"",
) -> bytes:
    """Return a whole HTTP answer."""
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve each connection with the handler, on a free port; a handler's end closes its connection."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            await handler(_Recording(reader, writer, server.requests))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()
            tasks.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await listening.wait_closed()


@dataclass
class _Recording(Connection):
    requests: list[bytes]

    async def receive(self) -> bytes:
        request = await super().receive()
        self.requests.append(request)
        return request


def always(data: bytes) -> Handler:
    """Answer every request with the same bytes, on a connection that is kept alive."""

    async def handler(connection: Connection) -> None:
        while True:
            await connection.receive()
            await connection.send(data)

    return handler


def once(data: bytes) -> Handler:
    """Answer the first request of a connection with these bytes, then close it."""

    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(data)

    return handler
