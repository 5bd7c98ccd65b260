"""The protocol of a connection: who gets an answer, and what an answer means that no call waits for."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest

from tests.api.servers import Connection, response, serving
from worker.api.failure import InvalidAnswerError
from worker.api.protocol import CallProtocol, Incoming, Turn
from worker.api.room import Room, read_content
from worker.api.transport import DROPPED

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def _silent(connection: Connection) -> None:
    """Read, and answer nothing: the tests hand the protocol what it is to receive."""
    while await connection.reader.read(1_000):
        pass


class _Written:
    """Notes what a protocol writes; it goes out as before."""

    def __init__(self, protocol: CallProtocol) -> None:
        self.requests: list[bytes] = []
        assert protocol.transport is not None
        self._transport = protocol.transport
        protocol.transport = cast("asyncio.Transport", self)

    def write(self, request: bytes) -> None:
        self.requests.append(request)
        self._transport.write(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@asynccontextmanager
async def connected(turn: Turn | None = None) -> AsyncIterator[CallProtocol]:
    loop = asyncio.get_running_loop()
    turn = turn or Turn(loop)
    async with serving(_silent) as server:
        transport, protocol = await loop.create_connection(lambda: CallProtocol(turn, loop), "127.0.0.1", server.port)
        try:
            yield protocol
        finally:
            transport.close()


async def _asked(protocol: CallProtocol) -> asyncio.Future[Incoming]:
    """Ask, and let the request be written."""
    asked = protocol.ask(REQUEST)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return asked


async def test_the_requests_of_one_turn_of_the_loop_are_written_together() -> None:
    turn = Turn(asyncio.get_running_loop())
    async with connected(turn) as one, connected(turn) as other:
        for _ in range(2):
            written = [_Written(one), _Written(other)]
            asked = [one.ask(REQUEST)]
            await asyncio.sleep(0)  # the loop reads what has come
            asked.append(other.ask(REQUEST))
            assert not any(each.requests for each in written)
            await asyncio.sleep(0)
            assert [each.requests for each in written] == [[REQUEST], [REQUEST]]
            assert not any(each.done() for each in asked)


@pytest.mark.parametrize("end", ["closed", "reset", "answered"])
async def test_a_request_is_not_written_to_a_connection_that_ends_before(end: str) -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
    async with connected() as protocol:
        assert protocol.transport is not None
        written, asked = _Written(protocol), protocol.ask(REQUEST)
        await asyncio.sleep(0)  # it is written next, before the loop tells of the end
        if end == "closed":
            protocol.transport.close()
        elif end == "reset":
            protocol.connection_lost(ConnectionResetError())
        else:
            protocol.data_received(response())
        await asyncio.sleep(0)
        assert isinstance(asked.exception(), DROPPED)
        assert not written.requests
        assert not troubles


async def test_a_request_whose_call_is_gone_is_not_written() -> None:
    async with connected() as protocol:
        written = _Written(protocol)
        protocol.ask(REQUEST).cancel()
        await _asked(protocol)
        assert written.requests == [REQUEST]


async def test_an_answer_goes_to_the_call_and_leaves_the_connection_usable() -> None:
    async with connected() as protocol:
        for number in range(3):
            asked = await _asked(protocol)
            protocol.data_received(response(b"%d" % number))
            message, stream = await asked
            assert (message.code, stream.read_nowait()) == (200, b"%d" % number)
            assert not protocol.should_close


async def test_an_answer_to_a_cancelled_call_is_kept_from_the_next() -> None:
    async with connected() as protocol:
        (await _asked(protocol)).cancel()
        protocol.data_received(response())  # in the same turn of the loop: the connection is not closed yet
        assert protocol.should_close


async def test_an_answer_that_no_call_waits_for_makes_the_connection_useless() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(response() + response())
        await asked
        assert protocol.should_close


async def test_an_answer_before_any_call_makes_the_connection_useless() -> None:
    async with connected() as protocol:
        protocol.data_received(response())
        assert protocol.should_close


async def test_a_flood_of_answers_that_no_call_waits_for_ends_the_connection() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(response() * 1_000)
        await asked
        assert protocol.is_connected()
        protocol.data_received(response() * 1_000)
        assert not protocol.is_connected()


async def test_what_comes_after_an_interim_answer_is_read() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + response())
        message, _ = await asked
        assert message.code == 103
        message, _ = await protocol.read()
        assert message.code == 200


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-"])
async def test_the_end_of_the_connection_goes_to_the_call(sent: bytes) -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(sent)
        protocol.connection_lost(None)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            asked.result()
        with pytest.raises(aiohttp.ClientConnectionResetError):
            await protocol.ask(REQUEST)


async def test_nonsense_goes_to_the_call_with_its_cause() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(b"SSH-2.0-OpenSSH_9.2\r\n")
        with pytest.raises(aiohttp.http.HttpProcessingError) as raised:
            asked.result()
        assert raised.value.__cause__ is not None


async def test_nonsense_in_a_body_ends_it() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")
        _, body = await asked
        protocol.data_received(b"zz\r\n")
        assert isinstance(body.exception(), aiohttp.http.HttpProcessingError)
        with pytest.raises(InvalidAnswerError):
            await read_content(body, {}, Room())


async def test_nonsense_after_a_body_leaves_it_as_it_is() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(response(b"{}"))
        protocol.data_received(b"SSH-2.0-OpenSSH_9.2\r\n")
        _, body = await asked
        assert body.read_nowait() == b"{}"


async def test_a_cut_body_is_told_as_one() -> None:
    async with connected() as protocol:
        asked = await _asked(protocol)
        protocol.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
        _, body = await asked
        protocol.connection_lost(None)
        assert isinstance(body.exception(), aiohttp.ClientPayloadError)


def _chunked(body: bytes, *, headers: bytes = b"", trailer: bytes = b"") -> bytes:
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n\r\n%s0\r\n%s\r\n" % (headers, chunks, trailer)


PACKED = gzip.compress(b'{"packed":true}', mtime=0)
ANSWERS = {
    "plain": response(b'{"plain":true}'),
    "empty": response(b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 14\r\n\r\n",
    "refused": response(b'{"error":{}}', status="429 Too Many Requests", headers=b"retry-after: 1\r\n"),
    "chunked": _chunked(b'{"chunked":true}'),
    "with a trailer": _chunked(b'{"trailer":true}', trailer=b"x-checksum: 1\r\n"),
    "packed": response(PACKED, headers=b"content-encoding: gzip\r\n"),
    "packed in chunks": _chunked(PACKED, headers=b"content-encoding: gzip\r\n"),
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}",
    "the last": response(b"{}", headers=b"connection: close\r\n"),
}


async def _heard(protocol: CallProtocol, answer: bytes, size: int) -> tuple[int, Mapping[str, str], bytes]:
    asked = await _asked(protocol)
    for start in range(0, len(answer), size):
        protocol.data_received(answer[start : start + size])
    message, stream = await asked
    content = protocol.whole(stream)
    return message.code, dict(message.headers), await stream.read() if content is None else content


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("first", ANSWERS)
async def test_no_answer_leaves_anything_behind_for_the_next(first: str, size: int) -> None:
    for second in ANSWERS.values():
        async with connected() as new, connected() as used:
            await _heard(used, ANSWERS[first], size)
            assert used.should_close is (first == "the last")
            if not used.should_close:
                assert await _heard(used, second, size) == await _heard(new, second, size)
