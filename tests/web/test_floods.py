"""Endless input of strangers blocks neither probes nor requests with the token."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.processes import Command, stopped
from tests.web.asking import Surface, serving, surface_of

TOKEN = "a-token-of-some-length"
_HEAD = b"Host: 127.0.0.1\r\n"
_FORM = b"Sec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n"

# Each is what one connection sends. Where nothing is answered, it stays open until the other end has had enough.
FLOODS = {
    "requests without a token": b"GET /metrics HTTP/1.1\r\n" + _HEAD + b"\r\n",
    "requests with a wrong token": b"GET /metrics HTTP/1.1\r\n" + _HEAD + b"Authorization: Bearer wrong\r\n\r\n",
    "wrong tokens to sign in with": b"POST /sign-in HTTP/1.1\r\n" + _HEAD + _FORM + b"Content-Length: 7\r\n\r\ntoken=x",
    "bodies that do not come": b"POST /sign-in HTTP/1.1\r\n" + _HEAD + _FORM + b"Content-Length: 7\r\n\r\n",
    "probes": b"GET /readyz HTTP/1.1\r\n" + _HEAD + b"\r\n",
    "probes with bodies that do not come": b"GET /livez HTTP/1.1\r\n" + _HEAD + b"Content-Length: 9\r\n\r\n",
    "idle connections": b"",
    "half a request": b"GET /livez HTTP/1.1\r\nHost: 12",
    "nothing that is HTTP": b"\x16\x03\x01\x00\xff" * 20,
}
_AT_ONCE = 400  # connections: more than are kept
_BEFORE_ASKING = 600
# A client at a flood's address may be taken for a part of it until its request has arrived: a connection that is
# silent for as long as 256 others take to come makes way. A kubelet asks three times before it acts.
_TRIES = 3


class _Flood:
    """Opens connections as fast as they come to an end, from one address, until it is told to stop."""

    def __init__(self, port: int, sent: bytes, source: str) -> None:
        self._port = port
        self._sent = sent
        self._source = source
        self._over = threading.Event()
        self.rising = threading.Event()
        self.made = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._keep_asking())

    async def _keep_asking(self) -> None:
        while not self._over.is_set():
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))
                self.made += 1
                if self.made >= _BEFORE_ASKING:
                    self.rising.set()
                writer.write(self._sent)
                reading = asyncio.ensure_future(reader.read())
                while not reading.done() and not self._over.is_set():
                    await asyncio.wait({reading}, timeout=0.1)
                writer.transport.abort()
                with suppress(OSError):
                    await reading

    def stop(self) -> None:
        self._over.set()


@contextmanager
def _flooded(surface: Surface, sent: bytes, source: str) -> Iterator[_Flood]:
    flood = _Flood(surface.port, sent, source)
    thread = threading.Thread(target=asyncio.run, args=(flood.run(),))
    thread.start()
    try:
        assert flood.rising.wait(60)
        yield flood
    finally:
        flood.stop()
        thread.join(60)


def _answer(ask: Callable[[], tuple[int, str]], tries: int) -> tuple[int, str]:
    for _ in range(tries - 1):
        with suppress(ConnectionError):
            return ask()
    return ask()


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    """One worker for all floods; its log goes to a file."""
    folder = tmp_path_factory.mktemp("flooded")
    settings = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "METASYNC_LOG_FORMAT": "json"}
    command = serving(Command(folder, settings), METASYNC_HTTP_TOKEN=TOKEN)
    with stopped(command.start("run")) as process:
        surface = surface_of(process)
        assert process.stderr is not None
        reading = threading.Thread(target=lambda: (folder / "log").write_bytes(process.stderr.read()))  # type: ignore[union-attr] # it is there
        reading.start()
        yield surface
        process.terminate()
        reading.join(60)
    assert process.returncode == 0
    log = (folder / "log").read_text()
    assert len(log.splitlines()) < 200
    assert '"level":"error"' not in log


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"], ids=["from the same address", "from elsewhere"])
@pytest.mark.parametrize("sent", FLOODS.values(), ids=FLOODS)
def test_probes_and_those_with_the_token_are_answered(surface: Surface, sent: bytes, source: str) -> None:
    operator = surface.with_token(TOKEN)
    form = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    tries = 1 if source != surface.source else _TRIES
    with _flooded(surface, sent, source) as flood:
        time.sleep(1.0 - time.monotonic() % 1.0)  # what the test before asked for counts against this second's limit
        for _ in range(3):
            made = flood.made
            assert _answer(lambda: surface.ask("/livez"), tries)[0] == 200
            assert _answer(lambda: surface.ask("/readyz"), tries)[0] == 200
            assert _answer(lambda: operator.ask("/metrics"), tries)[0] == 200
            order = {"all": True, "newest": 1, "shown": 1}
            assert _answer(lambda: operator.order("/purge", order), tries) == (200, '{"purged":0}')  # noqa: B023 -- called at once
            assert _answer(lambda: surface.post("/sign-in", f"token={TOKEN}", **form), tries)[0] == 303
            assert flood.made >= made


def test_a_stranger_from_elsewhere_is_answered_during_a_flood(surface: Surface) -> None:
    with _flooded(surface, FLOODS["requests without a token"], "127.0.0.2"):
        assert surface.ask("/metrics")[0] == 401
        assert surface.ask("/sign-in")[0] == 200


def test_unread_answers_delay_no_other_client(surface: Surface) -> None:
    asked = b"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20
    unread = []
    for _ in range(300):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect(("127.0.0.1", surface.port))
        connection.sendall(asked)
        unread.append(connection)
    assert surface.ask("/livez")[0] == 200
    assert surface.with_token(TOKEN).ask("/metrics")[0] == 200
    for connection in unread:
        connection.close()
