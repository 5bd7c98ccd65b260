"""Who may see what, and that nobody who asks a lot slows the worker down."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

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
            stack.enter_context(socket.create_connection(("127.0.0.1", surface.port)))
        flood = stack.enter_context(ThreadPoolExecutor(8))
        statuses = [flood.submit(_status, surface, "/metrics") for _ in range(150)]
        command.run("enqueue", write_changes(command.folder / "changes.jsonl", changes))
        for _ in range(300):
            wait_for_event(process, "change.applied")
        assert surface.ask("/livez")[0] == 200
        assert 429 in {status.result() for status in statuses}


def _status(surface: Surface, path: str) -> int:
    return surface.ask(path)[0]
