"""Which connection carries a request, and what happens to it after the answer."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.api.conformance.calls import LONG, client_of
from tests.api.servers import Connection, Handler, always, response, serving
from worker.api import Answer, Client, Kind
from worker.api import connector as connector_module

MINE = response(b'{"id":"chatcmpl-1","metadata":{"k":"v"}}')
ABSENT = response(b'{"error":{"message":"Completion chatcmpl-1 not found"}}', status="404 Not Found")
OTHER = response(b'{"id":"chatcmpl-2","metadata":{"k":"SECRET"}}')


async def update(client: Client, *, fresh: bool = False) -> Answer:
    return await client.update("chatcmpl-1", {"k": "v"}, timeout_seconds=LONG, fresh=fresh)


async def get(client: Client, *, fresh: bool = False) -> Answer:
    return await client.get("chatcmpl-1", timeout_seconds=LONG, fresh=fresh)


async def delete(client: Client) -> Answer:
    return await client.delete("chatcmpl-1", timeout_seconds=LONG)


def scripted(*connections: list[bytes]) -> Handler:
    """Answer the requests of each connection by its own script; the last script serves all further connections."""
    scripts = list(connections)

    async def handler(connection: Connection) -> None:
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        for data in script:
            await connection.receive()
            await connection.send(data)
        await connection.reader.read()

    return handler


async def until_read() -> None:
    """Let the event loop read all that lies in its sockets: client and server are in one process."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_client_uses_the_transport_under_test(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of("http://127.0.0.1:1/v1") as client:
        assert type(client._transport).__name__ == {"direct": "DirectTransport", "session": "SessionTransport"}[way]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ([] if way == "direct" else ["aiohttp 4.0.0 is new to metasync: requests take the longer way"])


@pytest.mark.parametrize("call", [update, get, delete])
async def test_an_answer_about_another_completion_is_foreign_and_ends_its_connection(
    call: Callable[[Client], Awaitable[Answer]],
) -> None:
    async with serving(scripted([OTHER, MINE], [MINE])) as server, client_of(server.url) as client:
        foreign = await call(client)
        assert (foreign.verdict.kind, foreign.verdict.foreign) == (Kind.RETRY, True)
        assert foreign.verdict.error == "HTTP 200, but the answer is about another completion: chatcmpl-2"
        assert (foreign.metadata, foreign.body) == (None, b"")
        assert (await call(client)).verdict.kind is Kind.OK
    assert server.connections == 2


async def test_a_foreign_answer_in_pieces_ends_its_connection_too() -> None:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.receive()
            await connection.send(OTHER[:-20])
            await asyncio.sleep(0.02)  # so that the head is read without the body's end
            await connection.send(OTHER[-20:])

    async with serving(handler) as server, client_of(server.url) as client:
        assert [(await get(client)).verdict.foreign for _ in range(3)] == [True] * 3
    assert server.connections == 3


@pytest.mark.parametrize(
    "data",
    [
        response(b"{}"),
        response(b'{"success":false}'),
        response(b"<html>Welcome</html>"),
        response(b'{"error":"it broke"}'),
        response(b'{"error":{"message":"Completion chatcmpl-2 not found"}}', status="404 Not Found"),
        response(b'{"id":"chatcmpl-1","metadata":{"k":"an old value"}}'),
        response(b'{"id":"chatcmpl-1","metadata":{}}'),
    ],
)
async def test_an_answer_that_is_not_believed_ends_its_connection(data: bytes) -> None:
    async with serving(always(data)) as server, client_of(server.url) as client:
        for _ in range(3):
            await update(client)
    assert server.connections == 3


@pytest.mark.parametrize(
    "data",
    [
        MINE,
        response(b'{"id":"chatcmpl-1","metadata":{"k":"v","kept":"x"}}'),
        response(b'{"id":"chatcmpl-1"}'),
        response(b"", status="204 No Content"),
        response(b'{"error":{"message":"no"}}', status="400 Bad Request"),
        response(b'{"error":{"message":"Completion chatcmpl-1 not found"}}', status="404 Not Found"),
        response(b"busy", status="503 Service Unavailable"),
    ],
)
async def test_any_other_answer_leaves_the_connection_to_the_next_call(data: bytes) -> None:
    async with serving(always(data)) as server, client_of(server.url) as client:
        for _ in range(3):
            await update(client)
    assert server.connections == 1


async def test_an_answer_that_comes_twice_is_never_taken_for_another_requests() -> None:
    async def handler(connection: Connection) -> None:
        while True:
            head = await connection.receive()
            completion_id = head.split(b" ", 2)[1].rpartition(b"/")[2]
            await connection.send(2 * response(b'{"id":"%s","metadata":{"is":"%s"}}' % (completion_id, completion_id)))

    async with serving(handler) as server, client_of(server.url, max_connections=4) as client:
        ids = [f"chatcmpl-{number}" for number in range(40)]
        answers = await asyncio.gather(*(client.get(each, timeout_seconds=LONG) for each in ids))
    assert [answer.metadata for answer in answers] == [{"is": each} for each in ids]


@pytest.mark.parametrize("comes", ["bytes", "end"])
@pytest.mark.parametrize("is_read", [True, False])
async def test_a_connection_on_which_something_came_unasked_is_not_used(*, is_read: bool, comes: str) -> None:
    """Even if the event loop has not read it yet."""
    at_hand: list[socket.socket] = []
    more = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(MINE)
        at_hand.append(connection.writer.get_extra_info("socket"))
        await more.wait()

    async with serving(handler) as server, client_of(server.url) as client:
        assert (await get(client)).verdict.kind is Kind.OK
        await until_read()
        with socket.socket(fileno=socket.dup(at_hand[0].fileno())) as writing:
            if comes == "bytes":
                writing.send(MINE)  # at once, and not by the event loop
            else:
                writing.shutdown(socket.SHUT_WR)
        if is_read:
            await until_read()
        assert (await get(client)).verdict.kind is Kind.OK
        more.set()
    assert server.connections == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize("comes", ["with the answer", "later"])
async def test_an_unasked_answer_that_has_only_begun_is_not_taken_for_the_next_requests(comes: str) -> None:
    more = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(MINE + ABSENT[:12] if comes == "with the answer" else MINE)
        if comes == "later":
            await more.wait()
            await connection.send(ABSENT[:12])
        await connection.receive()
        await connection.send(ABSENT[12:])

    async with serving(handler) as server, client_of(server.url) as client:
        assert (await get(client)).verdict.kind is Kind.OK
        more.set()
        await until_read()
        assert (await get(client)).verdict.kind is not Kind.NOT_FOUND


async def test_a_new_connection_that_answers_before_it_was_asked_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, has_spoken = aiohttp.TCPConnector.connect, asyncio.Event()

    async def connect_and_wait(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        await has_spoken.wait()
        await until_read()
        return connection

    async def handler(connection: Connection) -> None:
        await connection.send(MINE)
        has_spoken.set()
        await connection.receive()

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_and_wait)
    async with serving(handler) as server, client_of(server.url) as client:
        verdict = (await update(client)).verdict
    assert (verdict.kind, verdict.transport) == (Kind.RETRY, True)
    assert verdict.error == "an answer came before anything was asked"
    assert not server.requests


async def test_a_call_that_wants_a_fresh_connection_gets_one() -> None:
    async with serving(always(MINE)) as server, client_of(server.url, max_connections=2) as client:
        for expected in (1, 2, 3):
            assert (await update(client, fresh=True)).verdict.kind is Kind.OK
            assert (await get(client)).verdict.kind is Kind.OK
            assert server.connections == expected


async def test_a_fresh_connection_replaces_a_free_one_at_the_limit() -> None:
    all_arrived, arrived = asyncio.Event(), 0

    async def handler(connection: Connection) -> None:
        nonlocal arrived
        while True:
            await connection.receive()
            arrived += 1
            if arrived == 3:
                all_arrived.set()
            await all_arrived.wait()
            await connection.send(MINE)

    async with serving(handler) as server, client_of(server.url, max_connections=3) as client:
        await asyncio.gather(*(get(client) for _ in range(3)))
        assert server.connections == 3
        # In less time than free connections take to expire.
        calls = (client.get("chatcmpl-1", timeout_seconds=10.0, fresh=True) for _ in range(5))
        assert {answer.verdict.kind for answer in await asyncio.gather(*calls)} == {Kind.OK}
        assert server.connections == 8


def dying(*, answers: int, ends: Callable[[Connection], None]) -> Handler:
    """Answer so many requests of a connection; read the next one, and close."""

    async def handler(connection: Connection) -> None:
        for _ in range(answers):
            await connection.receive()
            await connection.send(MINE)
        await connection.receive()
        ends(connection)

    return handler


def closes(connection: Connection) -> None:
    connection.writer.close()


def resets(connection: Connection) -> None:
    connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.writer.transport.abort()


@pytest.mark.parametrize("ends", [closes, resets])
@pytest.mark.parametrize("call", [update, get])
async def test_a_used_connection_that_ends_without_an_answer_is_replaced(
    call: Callable[[Client], Awaitable[Answer]], ends: Callable[[Connection], None]
) -> None:
    async with serving(dying(answers=1, ends=ends)) as server, client_of(server.url) as client:
        kinds = [(await call(client)).verdict.kind for _ in range(3)]
    assert kinds == [Kind.OK] * 3
    assert server.connections == 3
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("headers", "kinds"),
    [(b"connection: close\r\n", [Kind.OK, Kind.OK]), (b"", [Kind.OK, Kind.RETRY])],
    ids=["of a connection that is closed", "about the request"],
)
async def test_a_408_with_which_a_server_closes_a_used_connection_is_no_answer(
    headers: bytes, kinds: list[Kind]
) -> None:
    """It is what some servers say when a connection was idle for long; here it crosses the second request."""
    farewell = response(b"", status="408 Request Timeout", headers=headers)
    async with serving(scripted([MINE, farewell], [MINE])) as server, client_of(server.url) as client:
        assert [(await update(client)).verdict.kind for _ in range(2)] == kinds
    assert server.connections == (2 if headers else 1)


async def test_a_408_on_a_new_connection_is_a_failure() -> None:
    farewell = response(b"", status="408 Request Timeout", headers=b"connection: close\r\n")
    async with serving(scripted([farewell])) as server, client_of(server.url) as client:
        verdict = (await update(client)).verdict
    assert (verdict.kind, verdict.error) == (Kind.RETRY, "HTTP 408 Request Timeout")
    assert server.connections == 1


async def test_the_second_try_uses_no_other_used_connection() -> None:
    """A restarted server ends all connections: the second try is on a new one."""
    gone = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(MINE)
        if gone.is_set():
            await connection.reader.read()
        await connection.receive()

    async with serving(handler) as server, client_of(server.url, max_connections=4) as client:
        await asyncio.gather(*(update(client) for _ in range(4)))
        gone.set()
        assert (await update(client)).verdict.kind is Kind.OK
        assert server.connections == 5


@pytest.mark.parametrize("ends", [closes, resets])
async def test_a_new_connection_that_ends_without_an_answer_is_a_failure(ends: Callable[[Connection], None]) -> None:
    async with serving(dying(answers=0, ends=ends)) as server, client_of(server.url) as client:
        verdict = (await update(client)).verdict
    assert (verdict.kind, verdict.transport, verdict.error) == (Kind.RETRY, True, "the connection was dropped")
    assert len(server.requests) == 1


@pytest.mark.parametrize("part", [MINE[:20], MINE[:-5]])
async def test_a_used_connection_that_ends_within_an_answer_is_a_failure(part: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(MINE)
        await connection.receive()
        await connection.send(part)

    async with serving(handler) as server, client_of(server.url) as client:
        kinds = [(await update(client)).verdict.kind for _ in range(2)]
    assert kinds == [Kind.OK, Kind.RETRY]
    assert len(server.requests) == 2


async def test_connections_that_were_idle_for_long_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would cost a whole time-out if a router has forgotten them."""
    monkeypatch.setattr(connector_module, "IDLE_SECONDS", 0.05)
    async with serving(always(MINE)) as server, client_of(server.url) as client:
        await asyncio.gather(*(get(client) for _ in range(5)))
        before = server.connections
        time.sleep(0.1)  # noqa: ASYNC251 -- as where the process was frozen: no timer has closed them meanwhile
        await get(client)
        assert server.connections == before + 1


async def test_idle_connections_are_closed_without_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_module, "IDLE_SECONDS", 0.05)
    ended = asyncio.Semaphore(0)

    async def handler(connection: Connection) -> None:
        try:
            while True:
                await connection.receive()
                await connection.send(MINE)
        finally:
            ended.release()

    async with serving(handler) as server, client_of(server.url) as client:
        await asyncio.gather(*(get(client) for _ in range(3)))
        async with asyncio.timeout(LONG):
            for _ in range(server.connections):
                await ended.acquire()


@pytest.mark.parametrize(
    ("told", "connections"),
    [
        (b"timeout=5, max=100", 1),
        (b"max=100", 1),
        (b"timeout=never", 1),
        (b"", 1),
        (b"timeout=1", 3),
        (b"max=3, Timeout=0", 3),
    ],
)
async def test_a_connection_is_kept_no_longer_than_keep_alive_says(told: bytes, connections: int) -> None:
    """The margin is a second, so that nothing is left of a whole second."""
    data = response(b'{"id":"chatcmpl-1"}', headers=b"keep-alive: %s\r\n" % told)
    async with serving(always(data)) as server, client_of(server.url) as client:
        for _ in range(3):
            await get(client)
    assert server.connections == connections


async def test_keep_alive_shortens_the_idle_time_of_free_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_module, "_MARGIN_SECONDS", 0.95)
    data = response(b'{"id":"chatcmpl-1"}', headers=b"keep-alive: timeout=1\r\n")
    async with serving(always(data)) as server, client_of(server.url) as client:
        await get(client)
        await get(client)
        assert server.connections == 1
        await asyncio.sleep(0.1)
        await get(client)
        assert server.connections == 2
