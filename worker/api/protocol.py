"""The protocol of one connection: aiohttp's parser and flow control, with a shorter way from the answer to the call."""

import asyncio
import select

from aiohttp import ClientConnectionResetError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import set_exception
from aiohttp.http import RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD

# An answer's head, and its body as far as it has come.
Incoming = tuple[RawResponseMessage, StreamReader]

# The answers that are kept until they are read: interim ones, before the answer. aiohttp would keep any number, also on
# a connection that is idle.
_MOST_UNREAD = 1_000
_HEADS_END = b"\r\n\r\n"
_MOST_COMPARED = 16_384  # bytes: an idle connection may hold so many of its last answer


class Turn:
    """The requests of one turn of the event loop, which are written together once it has read what has come.

    A service that is woken for each request alone takes more of both sides' time (docs/performance.md). And what the
    loop has read by then is known to be no answer: to look at each connection before would take a system call.
    """

    __slots__ = ("_loop", "_requests")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._requests: list[tuple[CallProtocol, bytes, asyncio.Future[Incoming]]] = []

    def __repr__(self) -> str:
        return f"<Turn [{len(self._requests)} to write]>"

    def add(self, protocol: "CallProtocol", request: bytes, asked: "asyncio.Future[Incoming]") -> None:
        """Write a request soon."""
        if not self._requests:
            # Soon after soon: asyncio's own loop polls the sockets, and reads them after what was to be called soon.
            self._loop.call_soon(self._loop.call_soon, self._write)
        self._requests.append((protocol, request, asked))

    def _write(self) -> None:
        requests, self._requests = self._requests, []
        for protocol, request, asked in requests:
            protocol.write(request, asked)


class CallProtocol(ResponseHandler):
    """What aiohttp makes for each connection, for calls that need no queue of answers.

    aiohttp puts what it has parsed into a queue, and parses nothing once more whenever a body is read. `ask` returns a
    future instead, and only what was paused is resumed. A request that does not come through `ask` is served as by
    aiohttp alone.
    """

    def __init__(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._turn = turn
        self._asked: asyncio.Future[Incoming] | None = None
        self._unread: select.poll | None = None
        # A parser that is used again takes what it has begun for the next answer's: the trailers of a chunked one, or
        # the first half of one that nobody asked for.
        self._needs_parser = True
        self._latest = b""

    def ask(self, request: bytes) -> asyncio.Future[Incoming]:
        """Send a request; what comes first is the future's result, and `read` gives what comes after it.

        The future raises ClientConnectionResetError if the connection has ended before the request is written, or if
        something has come that would be taken for the answer.
        """
        asked: asyncio.Future[Incoming] = self._loop.create_future()
        self._turn.add(self, request, asked)
        return asked

    def write(self, request: bytes, asked: asyncio.Future[Incoming]) -> None:
        """Write a request, unless its call is gone; `Turn` calls this."""
        transport = self.transport
        if asked.done():
            return
        if transport is None or not self._is_usable(transport):
            asked.set_exception(ClientConnectionResetError())
            return
        if self._needs_parser:
            self.set_response_params(read_until_eof=True)
        self._asked = asked
        transport.write(request)

    def whole(self, stream: StreamReader) -> bytes | None:
        """The body of an answer, if it has come as a whole, as most do; None if it is to be read."""
        if self._reading_paused or stream is EMPTY_PAYLOAD or not stream.is_eof():
            return None
        content = b"".join(stream._buffer)  # noqa: SLF001 -- to read what is complete takes eight calls
        latest, self._latest = self._latest, b""
        if content and latest.endswith(_HEADS_END + content):
            self._needs_parser = False  # until more comes
        return content

    def is_silent(self, *, is_new: bool = False) -> bool:
        """Whether it is open and holds no bytes, read or unread: they would belong to another answer."""
        transport = self.transport
        if transport is None or not self._is_usable(transport):
            return False
        if is_new and transport.get_extra_info("sslcontext") is not None:
            return True  # the server's session tickets may still be unread
        return not self._has_unread(transport)

    def _is_usable(self, transport: asyncio.Transport) -> bool:
        """Whether it is open, and nothing was read that no call has asked for."""
        return not (transport.is_closing() or self.should_close)

    def _has_unread(self, transport: asyncio.Transport) -> bool:
        """Whether something has come that the event loop has not read yet: bytes, or the connection's end."""
        if self._unread is None:
            sock = transport.get_extra_info("socket")
            if sock is None:
                return False
            self._unread = select.poll()
            self._unread.register(sock.fileno(), select.POLLIN)
        return bool(self._unread.poll(0))

    # What aiohttp and the event loop call.

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._needs_parser = True
        self._latest = data if len(data) <= _MOST_COMPARED else b""
        super().data_received(data)

    def feed_data(self, data: Incoming, size: int = 0) -> None:
        """Hand on what was parsed."""
        if self._asked is None or self._asked.done():
            super().feed_data(data, size)
            if len(self._buffer) > _MOST_UNREAD and self.transport is not None:
                self.transport.close()
        else:
            self._asked.set_result(data)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Hand on that no answer will come."""
        super().set_exception(exc, *cause)
        if self._asked is not None:
            set_exception(self._asked, exc, *cause)
        # aiohttp's parser drops a body in which it finds nonsense, and a call would wait for the rest of it.
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            set_exception(body, exc, *cause)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 -- as aiohttp's
        """Read on, where reading was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)
