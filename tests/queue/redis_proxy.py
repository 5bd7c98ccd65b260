"""A proxy between a queue and its server: it can redirect, drop packets, or cut connections."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

_CHUNK = 65_536


class Proxy:
    """Passes on bytes in both directions.

    Args:
        port: where new connections lead; may be changed.
        tls: for the side of the queue.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self._forth, self._back, self._heard = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._forth.set()
        self._back.set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def url(self, **options: str | int) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis{'s' if self._tls else ''}://localhost:{self._own_port}/0{'?' if query else ''}{query}"

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing through in either direction within this context; connections stay open."""
        self._forth.clear()
        try:
            with self.deaf():
                yield
        finally:
            self._forth.set()

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Let no answers through within this context."""
        self._back.clear()
        self._heard.clear()
        try:
            yield
        finally:
            self._back.set()

    def cut(self) -> None:
        """End all connections; what is under way is lost."""
        for writer in self._writers:
            writer.transport.abort()

    async def heard(self) -> None:
        """Wait until an answer has been held back."""
        await self._heard.wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._own_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there_writer}
        for source, target, gate in ((reader, there_writer, self._forth), (there_reader, writer, self._back)):
            pipe = asyncio.create_task(self._hand_on(source, target, gate))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _hand_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(_CHUNK):
                    if gate is self._back:
                        self._heard.set()
                    await gate.wait()
                    target.write(data)
                    await target.drain()
        finally:
            self._writers.discard(target)
            target.close()
            with suppress(OSError):
                await target.wait_closed()
