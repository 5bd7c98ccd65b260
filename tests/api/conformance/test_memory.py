"""Answers under way take bounded memory, in any number and of any size."""

import asyncio
import gc
import tracemalloc

import pytest

from tests.api.conformance.calls import LONG, client_of
from tests.api.servers import Connection, serving
from worker.api import Client, Kind

SIZE = 6 * 1024 * 1024
HEAD = b'{"id":"chatcmpl-1","metadata":{"k":"v"},"choices":"'
CHUNK = b"x" * 65_536


async def size_of(client: Client) -> int:
    answer = await client.get("chatcmpl-1", timeout_seconds=LONG)
    assert (answer.verdict.kind, answer.metadata) == (Kind.OK, {"k": "v"})
    return len(answer.body)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_many_large_answers_at_once_wait_for_room(*, is_chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    all_arrived, arrived = asyncio.Event(), 0
    calls = 24

    async def handler(connection: Connection) -> None:
        nonlocal arrived
        await connection.receive()
        arrived += 1
        if arrived == calls:
            all_arrived.set()
        await all_arrived.wait()
        length = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % (SIZE + len(HEAD) + 2)
        await connection.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % length)
        for part in (HEAD, *[CHUNK] * (SIZE // len(CHUNK)), b'"}'):
            await connection.send(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
        await connection.send(b"0\r\n\r\n" if is_chunked else b"")

    monkeypatch.setattr("worker.api.room.Room.__init__.__defaults__", (16 * 1024 * 1024,))
    tracemalloc.start()
    try:
        async with serving(handler) as server, client_of(server.url) as client:
            sizes = await asyncio.gather(*(size_of(client) for _ in range(calls)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [SIZE + len(HEAD) + 2] * calls
    # The room, a copy to join one answer, and half a megabyte of each of the others. All answers together are 144 MiB.
    assert peak < 64 * 1024 * 1024


@pytest.mark.parametrize("is_cut", [False, True], ids=["too slow", "cut off"])
async def test_what_came_of_an_answer_that_failed_is_gone_with_it(*, is_cut: bool) -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * SIZE))
        for _ in range(SIZE // len(CHUNK)):
            await connection.send(CHUNK)
        if not is_cut:
            await connection.reader.read()

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with serving(handler) as server, client_of(server.url) as client:
            for _ in range(6):
                answer = await client.get("chatcmpl-1", timeout_seconds=LONG if is_cut else 0.5)
                told = "the answer was cut off" if is_cut else "no answer in time"
                assert (answer.verdict.kind, answer.verdict.error) == (Kind.RETRY, told)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < SIZE


async def test_waiting_for_room_ends_with_the_calls_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            await connection.send(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
        await connection.reader.read()

    monkeypatch.setattr("worker.api.room.Room.__init__.__defaults__", (16 * 1024 * 1024,))
    async with serving(handler) as server, client_of(server.url) as client:
        calls = (client.get("chatcmpl-1", timeout_seconds=0.5) for _ in range(3))
        verdicts = [answer.verdict for answer in await asyncio.gather(*calls)]
    assert {(verdict.kind, verdict.transport, verdict.error) for verdict in verdicts} == {
        (Kind.RETRY, True, "no answer in time")
    }
