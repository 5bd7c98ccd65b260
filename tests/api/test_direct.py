"""The free connections that the direct transport keeps for the next call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from tests.api.servers import Connection, always, response, serving
from worker.api import direct
from worker.api.direct import DirectTransport
from worker.api.transport import Headers, Reply, Request

LONG = 30.0  # seconds: nothing here comes near it


@asynccontextmanager
async def transport_to(port: int, *, limit: int = 10) -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(URL(f"http://127.0.0.1:{port}"), aiohttp.TCPConnector(limit=limit))
    try:
        yield transport
    finally:
        await transport.close()


async def ask(transport: DirectTransport) -> Reply:
    return await transport.exchange(Request("GET", "/", Headers({})), LONG)


async def test_the_next_call_takes_the_connection_of_the_last() -> None:
    async with serving(always(response())) as server, transport_to(server.port) as transport:
        for _ in range(5):
            await ask(transport)
        assert server.connections == 1


async def test_calls_beyond_the_limit_wait_for_a_connection_and_get_it() -> None:
    async with serving(always(response())) as server, transport_to(server.port, limit=2) as transport:
        await ask(transport)  # one is free now, and counts
        replies = await asyncio.gather(*(ask(transport) for _ in range(20)))
        assert {reply.status for reply in replies} == {200}
        assert server.connections == 2


async def test_a_connection_that_was_free_for_long_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_IDLE_SECONDS", -1.0)
    async with serving(always(response())) as server, transport_to(server.port) as transport:
        await ask(transport)
        await ask(transport)
        assert server.connections == 2


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_ones() -> None:
    answered = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(response(b"first"))
        await answered.wait()
        await connection.send(response(b"nobody's"))
        await connection.receive()

    async with serving(handler) as server, transport_to(server.port) as transport:
        assert (await ask(transport)).content == b"first"
        protocol = transport._free[0][0].protocol
        assert protocol is not None
        answered.set()
        async with asyncio.timeout(LONG):
            while not protocol.should_close:
                await asyncio.sleep(0.001)
        assert (await ask(transport)).content == b"first"
        assert server.connections == 2
