"""Headers and status of every answer: found, missing, failed, and for malformed HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import apsw
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.web.inside import Answer, a_worker_inside
from worker.queue.sqlite import letters, operations
from worker.web import door, metrics
from worker.web.bounds import ALWAYS
from worker.web.connections import Connections
from worker.web.door import admit_all
from worker.web.live import Live
from worker.web.routes import Handler, Route, application

TOKEN = "a-token-of-some-length"
HERE = "Host: 127.0.0.1"
OURS = (HERE, "Sec-Fetch-Site: same-origin", "Content-Type: application/json")
SEALED = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def _is_sealed(answer: Answer) -> bool:
    policy = answer.headers["Content-Security-Policy"]
    directives = {"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"}
    return directives <= set(policy.split("; ")) and all(
        answer.headers.get_all(name) == [value] for name, value in SEALED.items()
    )


@pytest.mark.parametrize(
    ("what", "headers", "status"),
    [
        ("GET /livez", (HERE,), 200),
        ("HEAD /livez", (HERE,), 200),
        ("GET /", (HERE,), 200),
        ("GET /sign-in", (HERE,), 303),
        ("GET /sign-in.js", (HERE,), 200),
        ("GET /nothing", (HERE,), 404),
        ("POST /nothing", (HERE,), 404),
        ("POST /purge", (HERE, "Content-Length: 0"), 403),
        ("POST /purge", OURS, 411),
        ("POST /purge", (*OURS, "Content-Length: 4097"), 413),
        ("POST /purge", (*OURS, "Content-Length: 4096"), 408),
        ("POST /purge", (*OURS, "Content-Length: 4", "Content-Encoding: gzip"), 415),
        ("POST /purge", (HERE, "Sec-Fetch-Site: same-origin", "Content-Length: 0"), 415),
        ("POST /sign-in", (HERE, "Sec-Fetch-Site: same-origin", "Content-Length: 4", "Content-Encoding: gzip"), 415),
        ("GET /livez", (HERE, "Expect: a-miracle"), 417),
        ("GET /livez", (HERE, "no header at all"), 400),
        ("GET /livez?" + "x" * 9_000, (HERE,), 400),
        ("", (HERE,), 400),
        ("\x16\x03\x01 this is TLS", (HERE,), 400),
    ],
)
async def test_every_answer_is_sealed_and_ends_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, headers: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr(door, "_BODY_SECONDS", 0.01)
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        answer = await inside.ask(what, *headers, f"Authorization: Bearer {TOKEN}")
    assert answer.status == status
    assert _is_sealed(answer)
    assert what.startswith("HEAD") is (answer.headers["Content-Length"] != str(len(answer.body)))


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        ("POST /metrics", "GET,HEAD"),
        ("DELETE /livez", "GET,HEAD"),
        ("OPTIONS /", "GET,HEAD"),
        ("GET /purge", "POST"),
        ("PUT /sign-in", "GET,HEAD,POST"),
        ("HEAD /events", "GET"),
    ],
)
async def test_another_method_is_refused_with_those_that_there_are(tmp_path: Path, what: str, allowed: str) -> None:
    async with a_worker_inside(tmp_path) as inside:
        answer = await inside.ask(what)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert _is_sealed(answer)


async def test_a_stranger_does_not_learn_what_there_is(tmp_path: Path) -> None:
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        for what in ("GET /metrics", "HEAD /metrics", "DELETE /metrics", "GET /nothing", "POST /purge", "HEAD /events"):
            answer = await inside.ask(what)
            assert answer.status == 401, what
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="metasync"'
            assert _is_sealed(answer)
        assert (await inside.ask("GET /nothing", HERE, f"Authorization: Bearer {TOKEN}")).status == 404
        assert (await inside.ask("HEAD /livez")).status == 200
        sent = await inside.ask("GET /", HERE, "Accept: text/html")
        assert (sent.status, sent.headers["Location"]) == (303, "/sign-in")


@pytest.mark.parametrize("failure", [ValueError("s3cret"), TimeoutError("s3cret"), ConnectionError("s3cret")])
async def test_a_handler_that_raises_is_logged_once_and_its_answer_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    def render(*_: object) -> bytes:
        raise failure

    monkeypatch.setattr(metrics.Metrics, "render", render)
    async with a_worker_inside(tmp_path) as inside:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # aiohttp then shows the trace to all who ask
        loop.slow_callback_duration = float("inf")  # asyncio would say how slow this machine is
        with capture_logs() as logs:
            answer = await inside.ask("GET /metrics")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert _is_sealed(answer)
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["method"], line["path"]) == ("web.failed", "GET", "/metrics")
    assert line["exc_info"] is failure
    assert caplog.messages == []


MALFORMED = (
    b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\ns3cret\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: metasync=s3cret\r\n\x00: s3cret\r\n\r\n",
    b"GET http://[s3cret HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: s3cret\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ns3crets3cret\r\n",
    b"\xff" * 9_000,
)


async def test_a_malformed_request_gets_one_log_line_without_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_worker_inside(tmp_path) as inside:
        with capture_logs() as logs, caplog.at_level(logging.WARNING):
            for sent in MALFORMED * 3:
                answer = await inside.send(sent)
                assert (answer.status, _is_sealed(answer)) == (400, True)
    [line] = logs
    assert (line["event"], line["log_level"], line["peer"], line["more"]) == ("web.malformed", "info", "127.0.0.1", 0)
    assert "s3cret" not in str(logs)
    assert caplog.messages == []


async def test_a_handler_that_always_fails_is_logged_at_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics.Metrics, "render", None)
    async with a_worker_inside(tmp_path) as inside:
        with capture_logs() as logs:
            for _ in range(5):
                answer = await inside.ask("GET /metrics")
                assert (answer.status, _is_sealed(answer)) == (500, True)
    assert [(line["event"], line["more"]) for line in logs] == [("web.failed", 0)]
    assert caplog.messages == []


ODD = (
    "[1, 2]",
    "null",
    "7",
    '"text"',
    '{"a": [1], "b": {"c": 2}, "d": null}',
    "no JSON",
    "[" * 5_000,
    r'{"a": "\ud800"}',
)


@pytest.mark.parametrize("show_values", [False, True])
async def test_an_odd_letter_hides_no_other(tmp_path: Path, *, show_values: bool) -> None:
    async with a_worker_inside(tmp_path, show_values=show_values) as inside:
        connection = apsw.Connection(str(tmp_path / "queue.db"))
        connection.set_busy_timeout(10_000)
        for place, metadata in enumerate(('{"a": "s3cret"}', *ODD, '{"z": "s3cret"}')):
            connection.execute(
                "INSERT INTO dead_letter (completion_id, mode, metadata, enqueued_at, reason, attempts, died_at)"
                " VALUES (?, 'merge', ?, 0, 'invalid', 1, 0)",
                (f"chatcmpl-{place}", metadata),
            )
        connection.close()
        status, shown = await inside.ask_json("GET /letters?reason=invalid")
    assert status == 200
    found = shown["letters"]
    assert [letter["completion_id"] for letter in found] == [f"chatcmpl-{place}" for place in range(len(ODD) + 2)]
    assert ("s3cret" in str(found)) is show_values
    for place, letter in enumerate(found[1:5]):
        assert letter["metadata"] == {}
        assert letter["odd"] == (ODD[place] if show_values else "•••")
    assert found[0]["metadata"] == {"a": "s3cret" if show_values else "•••"}
    assert set(found[5]["metadata"]) == {"a", "b", "d"}


async def test_a_row_that_makes_no_sense_costs_what_it_is_a_part_of_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(*_: object) -> None:
        raise ValueError("nonsense")

    with capture_logs() as logs:
        async with a_worker_inside(tmp_path) as inside:
            monkeypatch.setattr(letters, "reasons", nonsense)
            async with inside.events() as documents:
                document = await anext(documents)
            assert (document["reasons"], document["state"]["title"]) == (None, "Nothing to do")
            assert "web.failing" in document["trouble"]
            monkeypatch.setattr(operations, "read_notes", nonsense)
            while (await inside.ask("GET /readyz")).status == 200:  # what was asked for a moment ago is still known
                pass
            status, body = await inside.ask_json("GET /readyz")
            assert (status, "makes no sense" in body["failing"]["store"]) == (503, True)
            assert (await inside.ask("GET /livez")).status == 200
            assert (await inside.ask("GET /metrics")).status == 200
    assert [line["part"] for line in logs if line["event"] == "web.failing"] == ["reasons", "reach"]


@asynccontextmanager
async def _answering_events(serve: Handler) -> AsyncIterator[tuple[str, int]]:
    """Where this alone answers, at /events."""
    connections = Connections()
    app = application(connections, [Route("GET", "/events", serve, admit_all, ALWAYS)], guard=admit_all, bounds=ALWAYS)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    listening = await asyncio.get_running_loop().create_server(partial(connections.open, runner.server), "127.0.0.1")
    async with listening, asyncio.timeout(30):
        yield listening.sockets[0].getsockname()
    await runner.cleanup()


async def _never() -> bytes:
    raise AssertionError("no test has it rendered")


async def test_a_stream_that_had_to_make_room_is_over_at_once() -> None:
    live = Live(_never)  # it never runs, so that no news wakes a stream
    served = 0

    async def serve(request: web.Request) -> web.StreamResponse:
        nonlocal served
        served += 1
        try:
            return await live.serve(request, is_known=False)
        finally:
            served -= 1

    async with _answering_events(serve) as address:
        streams = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"200"
            streams.append(writer)
        while served > 8:
            await asyncio.sleep(0.01)
        for writer in streams:
            writer.close()
        live.close()
        while served:
            await asyncio.sleep(0.01)


async def test_a_reader_that_has_gone_before_its_stream_began_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    live = Live(_never)
    asked, done = asyncio.Event(), asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.set()
        while request.transport is not None:
            await asyncio.sleep(0.01)
        try:
            return await live.serve(request, is_known=False)
        finally:
            done.set()

    with capture_logs() as logs:
        async with _answering_events(serve) as address:
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await asked.wait()
            writer.transport.abort()
            await done.wait()
    assert logs == []
    assert caplog.messages == []
