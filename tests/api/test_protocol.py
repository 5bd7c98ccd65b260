"""The protocol of a connection: who gets an answer, and what an answer means that no call waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.api.servers import Connection, response, serving
from worker.api.protocol import CallProtocol

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def _silent(connection: Connection) -> None:
    """Read, and answer nothing: the tests hand the protocol what it is to receive."""
    while await connection.reader.read(1_000):
        pass


@asynccontextmanager
async def connected() -> AsyncIterator[CallProtocol]:
    loop = asyncio.get_running_loop()
    async with serving(_silent) as server:
        transport, protocol = await loop.create_connection(lambda: CallProtocol(loop), "127.0.0.1", server.port)
        try:
            yield protocol
        finally:
            transport.close()


async def test_an_answer_goes_to_the_call_and_leaves_the_connection_usable() -> None:
    async with connected() as protocol:
        for number in range(3):  # by one parser
            asked = protocol.ask(REQUEST)
            protocol.data_received(response(b"%d" % number))
            message, stream = await asked
            assert (message.code, stream.read_nowait()) == (200, b"%d" % number)
            assert not protocol.should_close


async def test_an_answer_to_a_cancelled_call_is_kept_from_the_next() -> None:
    async with connected() as protocol:
        protocol.ask(REQUEST).cancel()
        protocol.data_received(response())  # in the same turn of the loop: the connection is not closed yet
        assert protocol.should_close


async def test_an_answer_that_no_call_waits_for_makes_the_connection_useless() -> None:
    async with connected() as protocol:
        asked = protocol.ask(REQUEST)
        protocol.data_received(response() + response())
        await asked
        assert protocol.should_close


async def test_an_answer_before_any_call_makes_the_connection_useless() -> None:
    async with connected() as protocol:
        protocol.data_received(response())
        assert protocol.should_close


async def test_what_comes_after_an_interim_answer_is_read() -> None:
    async with connected() as protocol:
        asked = protocol.ask(REQUEST)
        protocol.data_received(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + response())
        message, _ = await asked
        assert message.code == 103
        message, _ = await protocol.read()
        assert message.code == 200


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-"])
async def test_the_end_of_the_connection_goes_to_the_call(sent: bytes) -> None:
    async with connected() as protocol:
        asked = protocol.ask(REQUEST)
        protocol.data_received(sent)
        protocol.connection_lost(None)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            asked.result()
        with pytest.raises(aiohttp.ClientConnectionResetError):
            protocol.ask(REQUEST)


async def test_nonsense_goes_to_the_call_with_its_cause() -> None:
    async with connected() as protocol:
        asked = protocol.ask(REQUEST)
        protocol.data_received(b"SSH-2.0-OpenSSH_9.2\r\n")
        with pytest.raises(aiohttp.http.HttpProcessingError) as raised:
            asked.result()
        assert raised.value.__cause__ is not None
