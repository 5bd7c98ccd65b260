"""A connection that the server ends is not logged as a fault, and what came over one does not outlive it."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.web.inside import a_worker_inside
from worker.web import bounds
from worker.web.connections import Connections, end

_BODY = b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000


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


@pytest.fixture
def without_collector() -> Iterator[None]:
    """The worker's collector comes late: by then, strangers may have left hundreds of megabytes in cycles."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 200_000, 400),
        (b"POST /changes HTTP/1.1\r\nHost: a\r\n" + _BODY, 401),
        (b"POST /sign-in HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: same-origin\r\n" + _BODY, 413),
        (b"POST /changes HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n" + _BODY, 417),
        (b"POST /livez HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a-token\r\n" + _BODY, 405),
    ],
    ids=["malformed", "without the token", "too long", "an expectation", "no such route"],
)
async def test_what_was_sent_is_gone_with_its_answer(request_line: bytes, status: int, tmp_path: Path) -> None:
    async with a_worker_inside(tmp_path, token="a-token") as inside:
        assert (await inside.send(request_line)).status == status
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            assert (await inside.send(request_line)).status == status
        assert tracemalloc.get_traced_memory()[0] - before < 5 * 200_000


@pytest.mark.usefixtures("without_collector")
async def test_what_is_answered_late_is_gone_with_its_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_PENALTY_SECONDS", 3600.0)
    monkeypatch.setattr(bounds.Rate, "takes", lambda *_: False)
    async with a_worker_inside(tmp_path, token="a-token") as inside:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", inside.port)
            writer.write(b"POST /changes HTTP/1.1\r\nHost: a\r\n" + _BODY)
            await writer.drain()
            writer.transport.abort()
        assert (await inside.ask("GET /livez")).status == 200  # later than all of these
        assert tracemalloc.get_traced_memory()[0] - before < 5 * 200_000


@pytest.mark.usefixtures("without_collector")
async def test_what_is_malformed_is_gone_with_its_sender(tmp_path: Path) -> None:
    async with a_worker_inside(tmp_path) as inside:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", inside.port)
            writer.write(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 200_000)
            await writer.drain()
            writer.transport.abort()
        assert (await inside.ask("GET /livez")).status == 200  # later than all of these
        assert tracemalloc.get_traced_memory()[0] - before < 5 * 200_000
