"""Server-sent events: one document a second to each open page, and no work while none is open."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from worker.web.connections import end
from worker.web.trouble import Trouble

_EVERY_SECONDS = 1.0
_MOST_STREAMS = 8
_LIFETIME_SECONDS = 600.0  # then the browser reconnects, and is checked again
_PATIENCE_SECONDS = 10.0  # with a reader that accepts no data
_COME_AGAIN_MS = 2000
_UNSHOWN = b'{"failed":true}'  # sent if rendering failed


class _Stream:
    """One open page; when ready it gets the newest document, and skips older ones."""

    def __init__(self, handler: web.RequestHandler, *, is_known: bool) -> None:
        self.handler = handler
        self.is_known = is_known
        self.news = asyncio.Event()
        self.document = b""

    def let_go(self) -> None:
        """End the stream, and wake the task that serves it."""
        end(self.handler)
        self.news.set()


class Live:
    """Renders one document for all open pages.

    Args:
        render: returns the document; while it raises, the pages show a failure.
    """

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render
        self._trouble = Trouble("page")
        self._streams: list[_Stream] = []
        self._wanted = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Live [{len(self._streams)} streams]>"

    async def run(self) -> None:
        """Render once a second while a page is open; runs for ever."""
        while True:
            await self._wanted.wait()
            document = _UNSHOWN
            with self._trouble.contained():
                document = await self._render()
            for stream in self._streams:
                stream.document = document
                stream.news.set()
            await asyncio.sleep(_EVERY_SECONDS)

    def close(self) -> None:
        """End all streams, so that a stopping worker does not wait for readers."""
        for stream in self._streams:
            stream.let_go()

    async def serve(self, request: web.Request, *, is_known: bool) -> web.StreamResponse:
        """Send documents until the reader leaves or its time is up; one stream too many ends the oldest.

        Args:
            is_known: whether the reader has signed in; only other such streams can displace it.
        """
        if request.transport is None:
            raise ConnectionResetError("the reader has gone")  # aiohttp-sse needs a transport
        async with sse_response(request, send_timeout=_PATIENCE_SECONDS) as response:
            alike = [stream for stream in self._streams if stream.is_known is is_known]
            for stream in alike[: max(0, len(alike) + 1 - _MOST_STREAMS)]:
                self._streams.remove(stream)
                stream.let_go()
            stream = _Stream(request.protocol, is_known=is_known)
            self._streams.append(stream)
            self._wanted.set()
            try:
                async with asyncio.timeout(_LIFETIME_SECONDS):
                    await _send(stream, response)
            except (TimeoutError, ConnectionError):
                end(request.protocol)
            finally:
                if stream in self._streams:
                    self._streams.remove(stream)
                if not self._streams:
                    self._wanted.clear()
        return response


async def _send(stream: _Stream, response: EventSourceResponse) -> None:
    while response.is_connected():
        await stream.news.wait()
        stream.news.clear()
        await response.send(stream.document.decode(), retry=_COME_AGAIN_MS)
