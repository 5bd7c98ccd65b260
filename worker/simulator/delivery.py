"""Puts answers on the wire: whole, in pieces, in part, twice, too late, or not at all."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from weakref import WeakKeyDictionary

from aiohttp import web

from worker.simulator.answers import Answer
from worker.simulator.streams import EVENT_END

# Lingering for no time turns the end of a connection into a reset: unsent bytes go, and a RST is sent for a FIN.
_NO_LINGER = struct.pack("ii", 1, 0)


class Delivery:
    """Delivers the answers of one simulator.

    Args:
        sleep: waits so many seconds, between the events of a stream.
    """

    def __init__(self, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._sleep = sleep
        # What connections whose answers are shifted by one are to answer next.
        self._held: WeakKeyDictionary[asyncio.Transport, Answer] = WeakKeyDictionary()

    async def deliver(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        """Write the answer, or what is to get there; what is returned, aiohttp writes."""
        transport = request.transport
        if transport is None:
            return _response(answer)
        if self._held and transport in self._held:
            self._held[transport], answer = answer, self._held[transport]
        match answer.delivery:
            case "whole":
                pass
            case "streamed":
                return await self._stream(request, answer)
            case "shifted":
                self._held.setdefault(transport, answer)
            case "duplicate":
                transport.write(_head(answer) + answer.body)
            case "cut_off":
                transport.write(_head(answer) + answer.body[: len(answer.body) // 2])
                transport.close()
            case "dropped":
                transport.close()
            case "reset":
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                transport.abort()
        # Where the connection has been closed, this goes nowhere.
        return _response(answer)

    async def _stream(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        events = answer.body.split(EVENT_END)[:-1]
        response = web.StreamResponse(status=answer.status, headers=_headers(answer))
        await response.prepare(request)
        for index, event in enumerate(events):
            if index and answer.pace_seconds:
                await self._sleep(answer.pace_seconds / (len(events) - 1))
            await response.write(event + EVENT_END)
        await response.write_eof()
        return response


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status or 200, body=answer.body, headers=_headers(answer))


def _headers(answer: Answer) -> dict[str, str]:
    return {"Content-Type": answer.content_type, **answer.headers}


def _head(answer: Answer) -> bytes:
    """Status line and headers, as aiohttp would write them for the whole answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in _headers(answer).items())
    phrase = HTTPStatus(answer.status).phrase
    return f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Length: {len(answer.body)}\r\n{lines}\r\n".encode()
