"""Proxies before a PostgreSQL server: a failing network, and a pooler of transactions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_PROTOCOL = (3 << 16).to_bytes(4, "big")  # version 3.0
_KEY = b"K"  # the number of the server's process, and a secret, to cancel with: a proxy tells its own
_IDLE = (b"Z", b"I")  # ReadyForQuery, and no transaction is open


@dataclass(frozen=True, slots=True)
class Place:
    """A server's address: a socket's path, or a host and port."""

    socket: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, url: str) -> Self:
        parts = urlsplit(url)
        if folder := parse_qs(parts.query).get("host"):
            return cls(Path(folder[0]) / ".s.PGSQL.5432")
        return cls(host=parts.hostname or "localhost", port=parts.port or 5432)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket)
        return await asyncio.open_connection(self.host, self.port)


class Network:
    """A network that can fall silent, in both directions or for answers only, or be cut."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._requests, self._answers = asyncio.Event(), asyncio.Event()  # set while packets pass
        self._writers: set[asyncio.StreamWriter] = set()
        self._awaited = b""
        self._met: asyncio.Future[None] | None = None
        self.connections = 0  # so far
        self.heal()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[tuple[Self, str]]:
        """Put a network before the server, and return the URL of the server behind it."""
        network = cls(Place.of(url))
        async with _listening(network._serve) as port:
            parts = urlsplit(url)
            user, _, _ = parts.netloc.rpartition("@")
            yield network, urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable"))

    def heal(self) -> None:
        """Let everything through, also what was held up."""
        self._requests.set()
        self._answers.set()

    def silence(self) -> None:
        """Drop all packets silently."""
        self._requests.clear()
        self._answers.clear()

    def silence_after(self, request: bytes) -> asyncio.Future[None]:
        """Let no answers through from the next such request on; the future is done when it has come."""
        self._awaited = request
        self._met = asyncio.get_running_loop().create_future()
        return self._met

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server; open ones stay."""
        self._place = Place.of(url)

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server_reader, server_writer = await self._place.connect()
        mine = {writer, server_writer}
        self._writers |= mine
        try:
            await asyncio.gather(self._send_requests(reader, server_writer), self._send_answers(server_reader, writer))
        finally:
            self._writers -= mine
            server_writer.transport.abort()

    async def _send_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self._requests.wait()
                if self._met is not None and self._awaited in data:
                    self._answers.clear()
                    self._met.set_result(None)
                    self._met = None
                writer.write(data)
        writer.transport.abort()

    async def _send_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self._answers.wait()
                writer.write(data)
        writer.transport.abort()


class Pooler:
    """A proxy that gives each transaction another of a few connections to the server, as pgbouncer can.

    It speaks the part of the protocol that this needs (https://www.postgresql.org/docs/current/protocol.html), with a
    server that asks for no password. Statements prepared and settings made in one transaction are not there in the
    next.

    Args:
        newest: whether a transaction gets the connection that was used last, as by default in pgbouncer, rather than
            another one than the transaction before.
    """

    def __init__(self, place: Place, size: int = 3, *, newest: bool = False) -> None:
        self._place = place
        self._size = size
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.LifoQueue() if newest else asyncio.Queue()
        )
        self._greeting = b""
        self.transactions = 0

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str, *, newest: bool = False) -> AsyncIterator[tuple[Self, str]]:
        """Put a pooler before one database, and return the URL of the database behind it."""
        pooler = cls(Place.of(url), newest=newest)
        database = urlsplit(url).path.removeprefix("/")
        for _ in range(pooler._size):
            await pooler._connect(database)
        async with _listening(pooler._serve) as port:
            yield pooler, f"postgresql://postgres@127.0.0.1:{port}/{database}?sslmode=disable"
        while not pooler._idle.empty():
            _, writer = pooler._idle.get_nowait()
            writer.transport.abort()

    async def _connect(self, database: str) -> None:
        reader, writer = await self._place.connect()
        parameters = b"user\0postgres\0database\0" + database.encode() + b"\0\0"
        writer.write(_packed(b"", _PROTOCOL + parameters))
        self._greeting = b""
        while not self._greeting.endswith(_packed(*_IDLE)):
            kind, body = await _message(reader)
            self._greeting += _packed(kind, bytes(len(body)) if kind == _KEY else body)
        self._idle.put_nowait((reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        writer.write(self._greeting)
        # The first message of a transaction may take a while; X is the goodbye.
        while (first := await reader.readexactly(1)) != b"X":
            await self._transaction(first, reader, writer)

    async def _transaction(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._idle.get()
        self.transactions += 1
        requests = asyncio.create_task(self._requests(data, reader, server_writer))
        try:
            kind, body = b"", b""
            while (kind, body) != _IDLE:
                kind, body = await _message(server_reader)
                writer.write(_packed(kind, body))
        finally:
            requests.cancel()
            await asyncio.wait([requests])
        self._idle.put_nowait((server_reader, server_writer))  # behind all others: the next transaction gets another

    async def _requests(self, data: bytes, reader: asyncio.StreamReader, server_writer: asyncio.StreamWriter) -> None:
        while data:
            server_writer.write(data)
            data = await reader.read(65_536)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


@asynccontextmanager
async def _listening(serve: Serve) -> AsyncIterator[int]:
    """Serve on a free port; cut all connections at the end."""
    serving: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(run(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports, whose end takes a step of the loop
