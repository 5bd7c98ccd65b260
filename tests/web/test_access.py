"""Access rights, and that many requests do not slow the worker down."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.e2e.processes import Command, RunningSimulator, stopped, wait_for_event, write_changes
from tests.web.asking import Surface, serving, surface_of

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.test"])  # noqa: S104 -- what is refused
def test_others_are_served_only_with_a_token(command: Command, host: str) -> None:
    ended = serving(command, METASYNC_HTTP_HOST=host).run("run")
    assert ended.returncode == 2
    assert "METASYNC_HTTP_TOKEN" in ended.stderr


def test_all_but_health_asks_for_the_token(command: Command) -> None:
    with stopped(serving(command, METASYNC_HTTP_HOST="0.0.0.0", METASYNC_HTTP_TOKEN=TOKEN).start("run")) as process:  # noqa: S104 -- bounded by the test
        surface = surface_of(process)
        assert [surface.ask(path)[0] for path in ("/livez", "/healthz", "/readyz")] == [200, 200, 200]
        assert surface.ask("/metrics")[0] == 401
        assert surface.ask("/")[0] == 401
        assert surface.ask("/metrics", Authorization="Bearer wrong")[0] == 401
        assert surface.ask("/metrics", Authorization=f"Basic {TOKEN}")[0] == 401
        assert surface.ask("/metrics", Authorization="Bearer \u00fc")[0] == 401
        assert surface.ask("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        process.kill()
        assert process.stderr is not None
        assert TOKEN not in process.stderr.read().decode()


def test_only_what_is_there_is_served_and_only_to_be_read(command: Command) -> None:
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        assert surface.ask("/nothing")[0] == 404
        assert surface.ask("/metrics", method="POST")[0] == 405
        assert surface.ask("/metrics", method="DELETE")[0] == 405
        assert surface.ask("/metrics", method="HEAD") == (200, "")
        assert surface.ask("/metrics?" + "x" * 100_000)[0] == 400


def test_idle_connections_and_a_flood_keep_neither_work_nor_probes_from_going_on(
    command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"count": 300})
    changes = [
        {"completion_id": f"chatcmpl-{number:06}", "metadata": {"a": "b"}, "mode": "replace"}
        for number in range(1, 301)
    ]
    with ExitStack() as stack:
        process = stack.enter_context(stopped(serving(command).start("run")))
        surface = surface_of(process)
        for _ in range(200):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", surface.port)))
            idle.sendall(b"POST /purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n")  # and no body
        flood = stack.enter_context(ThreadPoolExecutor(8))
        paths = ("/metrics", "/letters", "/")
        statuses = [flood.submit(_status, surface, paths[number % 3]) for number in range(150)]
        command.run("enqueue", write_changes(command.folder / "changes.jsonl", changes))
        for _ in range(300):
            wait_for_event(process, "change.applied")
        assert surface.ask("/livez")[0] == 200
        assert 429 in {status.result() for status in statuses}


def _status(surface: Surface, path: str) -> int:
    return surface.ask(path)[0]


def test_another_name_that_points_here_is_refused(command: Command) -> None:
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        for path in ("/", "/metrics", "/events", "/letters"):
            assert surface.ask(path, Host="evil.example")[0] == 403
        assert surface.ask("/livez", Host="evil.example")[0] == 200
        assert surface.ask("/", Host=f"localhost:{surface.port}")[0] == 200


def test_only_the_page_itself_can_ask_for_something_to_be_done(command: Command) -> None:
    with stopped(serving(command, METASYNC_HTTP_TOKEN=TOKEN).start("run")) as process:
        surface = surface_of(process)
        here = f"127.0.0.1:{surface.port}"
        json = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        every = '{"all": true, "newest": 5, "shown": 5}'
        for headers in (
            {},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://{here}", "Sec-Fetch-Site": "cross-site"},
        ):
            assert surface.post("/purge", every, **json, **headers)[0] == 403
        ours = {"Origin": f"http://{here}", "Sec-Fetch-Site": "same-origin"}
        assert surface.post("/purge", every, **json, **ours) == (200, '{"purged":0}')
        assert surface.post("/replay", every, **json, **ours) == (200, '{"replayed":0,"kept":0,"superseded":0}')
        assert surface.post("/purge", every, **{**json, "Content-Type": "text/plain"}, **ours)[0] == 415
        assert surface.post("/purge", "{}", **json, **ours)[0] == 400
        assert surface.post("/purge", '{"all": true, "number": 1}', **json, **ours)[0] == 400
        assert surface.post("/purge", "x" * 5_000, **json, **ours)[0] == 413
        assert surface.with_token(TOKEN).ask("/purge")[0] == 405


def test_a_session_is_for_those_who_know_the_token(command: Command) -> None:
    with stopped(serving(command, METASYNC_HTTP_TOKEN=TOKEN).start("run")) as process:
        surface = surface_of(process)
        for path in ("/page.js", "/events", "/letters", "/session"):
            assert surface.ask(path)[0] == 401
        for cookie in ("", "1.2", f"9999999999.{TOKEN}", "\u00fc.\u00fc", "9999999999."):
            shown = f"metasync-{surface.port}={cookie}".encode().decode("latin-1")
            assert surface.ask("/letters", Cookie=shown)[0] == 401
        ours = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
        assert surface.post("/purge", '{"all": true}', **ours)[0] == 401


def test_a_stream_too_many_ends_the_oldest(command: Command) -> None:
    with stopped(serving(command).start("run")) as process, ExitStack() as stack:
        surface = surface_of(process)
        streams = []
        for _ in range(12):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", surface.port), timeout=30))
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.1 200"
            streams.append(stream)
        for stream in streams[:4]:  # the oldest had to go
            with suppress(ConnectionError):
                while stream.recv(65_536):
                    pass
        for stream in streams[4:]:
            received = b""
            while received.count(b"data: ") < 2:
                received += stream.recv(65_536)
        assert surface.ask("/livez")[0] == 200
