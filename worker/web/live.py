"""Server-sent events: one document a second to each page that is open, and nothing while none is."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from worker.web.door import HEADERS, end

_EVERY_SECONDS = 1.0
_MOST_STREAMS = 8
_LIFETIME_SECONDS = 600.0  # then the browser comes again, and has to be let in again
_PATIENCE_SECONDS = 10.0  # for a reader that takes nothing


class _Stream:
    """One open page; it gets the newest document when it is ready for one, and never an older one."""

    def __init__(self, handler: web.RequestHandler) -> None:
        self.handler = handler
        self.news = asyncio.Event()
        self.document: bytes | None = None


class Live:
    """Renders for all open pages at once.

    Args:
        render: gives the document.
    """

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render
        self._streams: list[_Stream] = []
        self._wanted = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Live [{len(self._streams)} streams]>"

    async def run(self) -> None:
        """Render once a second as long as somebody looks, for ever."""
        while True:
            await self._wanted.wait()
            document = await self._render()
            for stream in self._streams:
                stream.document = document
                stream.news.set()
            await asyncio.sleep(_EVERY_SECONDS)

    def close(self) -> None:
        """Let go of every reader: a worker that ends waits for none."""
        for stream in self._streams:
            end(stream.handler)
            stream.news.set()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send documents until the reader goes, or its time is up; a stream too many ends the oldest."""
        while len(self._streams) >= _MOST_STREAMS:
            end(self._streams.pop(0).handler)
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream; charset=utf-8"})
        response.force_close()
        stream = _Stream(request.protocol)
        self._streams.append(stream)
        self._wanted.set()
        try:
            async with asyncio.timeout(_LIFETIME_SECONDS):
                await self._send(stream, request, response)
        except (TimeoutError, ConnectionError):
            end(request.protocol)
        finally:
            if stream in self._streams:
                self._streams.remove(stream)
            if not self._streams:
                self._wanted.clear()
        return response

    @staticmethod
    async def _send(stream: _Stream, request: web.BaseRequest, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
        while True:
            await stream.news.wait()
            stream.news.clear()
            if request.transport is None:
                return
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await response.write(b"data: %b\n\n" % (stream.document or b"{}"))
