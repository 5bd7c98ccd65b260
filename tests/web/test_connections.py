"""A connection that the server ends is not logged as a fault."""

import asyncio
from contextlib import suppress
from functools import partial

from aiohttp import web
from structlog.testing import capture_logs

from worker.web.connections import Connections, end


async def test_what_cannot_be_written_to_a_connection_that_was_cut_is_no_failure() -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        end(request.protocol)
        raise ConnectionResetError("cannot write to what closes")

    server = web.Server(cut)
    listener = await asyncio.get_running_loop().create_server(partial(Connections().open, server), "127.0.0.1", 0)
    with capture_logs() as logs:
        async with listener:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            await server.shutdown()
    assert logs == []
