"""The health checks for supervisors."""

import asyncio
import json
import signal
import socket
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.processes import Command, RunningSimulator, running_simulator, stopped, wait_for_event, write_changes
from tests.needs import permitted
from tests.web.asking import serving, surface_of
from tests.web.inside import a_worker_inside
from worker.queue import QueueUnavailable
from worker.queue.sqlite import operations
from worker.web.depth import Asked

TOKEN = "a-token-of-some-length"
CHANGE = {"completion_id": "chatcmpl-000001", "metadata": {"grade": "A"}, "mode": "replace"}


def test_a_daemon_that_works_is_alive_and_ready(command: Command) -> None:
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        for path in ("/livez", "/healthz"):
            status, body = surface.ask_json(path)
            assert status == 200
            assert body["tick_age_seconds"] >= 0
        assert surface.ask_json("/readyz") == (200, {"ready": True, "failing": {}})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_halted_worker_is_alive_but_not_ready_and_says_why(command: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"count": 1})
    simulator.ask("/switches", {"bad_key": True})
    command.run("enqueue", write_changes(command.folder / "changes.jsonl", [CHANGE]))
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        wait_for_event(process, "worker.halted")
        said = "unauthorized: HTTP 401 Unauthorized: invalid_api_key: Incorrect API key provided: ***"
        assert surface.ask_json("/readyz") == (503, {"ready": False, "failing": {"halted": said}})
        assert surface.ask("/livez")[0] == 200
        _, metrics = surface.ask("/metrics")
        assert 'metasync_halted{reason="unauthorized"} 1.0' in metrics
        assert 'metasync_gate_state{state="halted"} 1.0' in metrics


def test_a_worker_that_stops_is_not_ready_while_its_last_request_may_finish(tmp_path: Path) -> None:
    with running_simulator("--completions", "1", "--fault", "hang=1") as simulator:
        settings = {"OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": simulator.base_url}
        command = serving(Command(tmp_path, settings | {"METASYNC_LOG_FORMAT": "json"}))
        command.run("enqueue", write_changes(tmp_path / "changes.jsonl", [CHANGE]))
        with stopped(command.start("run")) as process:
            surface = surface_of(process)
            while "metasync_requests_in_flight 1.0" not in surface.ask("/metrics")[1]:
                pass
            process.send_signal(signal.SIGTERM)
            wait_for_event(process, "worker.stopping")
            assert surface.ask_json("/readyz") == (503, {"ready": False, "failing": {"draining": "the worker stops"}})
            assert surface.ask("/livez")[0] == 200


async def test_who_has_no_token_is_told_what_fails_and_not_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise QueueUnavailable("no answer from secret-host")

    monkeypatch.setattr(operations, "read_notes", away)
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:

        async def told(*headers: str) -> object:
            answer = await inside.ask("GET /readyz", "Host: a", *headers)
            return answer.status, json.loads(answer.body)

        why = {"store": "no answer from secret-host"}
        assert await told(f"Authorization: Bearer {TOKEN}") == (503, {"ready": False, "failing": why})
        untold = (503, {"ready": False, "failing": {"store": "send the token to see why"}})
        assert [await told(), await told("Authorization: Bearer wrong")] == [untold, untold]


class _Store:
    """A store whose answers a test decides."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)

    async def status(self) -> str:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer
        await asyncio.Event().wait()
        return ""


async def test_a_store_that_is_away_is_named() -> None:
    depth = Asked(
        "status", _Store(QueueUnavailable("the server is not there")).status, timeout_seconds=10, clock=time.monotonic
    )
    assert await depth.look() is None
    assert depth.error == "the server is not there"


async def test_a_store_that_never_answers_is_given_up() -> None:
    depth = Asked("status", _Store(None).status, timeout_seconds=0.01, clock=time.monotonic)
    assert await depth.look() is None
    assert depth.error == "the store did not answer in time"


async def test_many_who_look_at_once_ask_the_store_once() -> None:
    depth = Asked("status", _Store(QueueUnavailable("away")).status, timeout_seconds=10, clock=time.monotonic)
    assert await asyncio.gather(*(depth.look() for _ in range(50))) == [None] * 50


async def test_many_who_look_at_once_are_told_at_once() -> None:
    """In a flood of probes, each that waited for those before it would be cut before its answer."""
    answered = asyncio.Event()
    depth = Asked("status", answered.wait, timeout_seconds=10, clock=time.monotonic)
    asking = [asyncio.create_task(depth.look()) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the others' answer comes all the same
    answered.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert [task.result() for task in asking[1:] if task.done()] == [True] * 49


@permitted(socket.has_dualstack_ipv6(), "this machine has no IPv6")
def test_all_addresses_are_those_of_ipv4_too(command: Command) -> None:
    """The health check of the image asks 127.0.0.1, and a kubelet the pod's first address."""
    with stopped(serving(command, METASYNC_HTTP_HOST="::", METASYNC_HTTP_TOKEN="t" * 32).start("run")) as process:
        surface = surface_of(process)
        assert surface.ask("/livez")[0] == 200
        connection = HTTPConnection("::1", surface.port, timeout=30)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_port_that_is_taken_is_an_error_of_configuration(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serving(command, METASYNC_HTTP_PORT=str(port)).run("run")
    assert ended.returncode == 2
    assert f"cannot listen on METASYNC_HTTP_HOST 127.0.0.1, port {port}" in ended.stderr


def test_a_drain_serves_nothing_and_so_runs_beside_a_daemon(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = serving(command, METASYNC_HTTP_PORT=str(taken.getsockname()[1])).run("run", "--drain")
    assert ended.returncode == 0
    assert "web.started" not in ended.stderr
