"""`metasync doctor`: each fault is reported at its check, with advice, and the other checks still run."""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from config.settings import Settings
from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator
from tests.ports import free_port
from tests.queue import redis_server
from tests.queue.postgres_server import StoppedClock, new_database
from tests.queue.stores import STORES
from worker.api import Halt
from worker.cli.checkup.service import _HALTS
from worker.cli.checkup.store import check_queue

Checks = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def service() -> Iterator[RunningSimulator]:
    with running_simulator("--completions", "2") as running:
        yield running


@pytest.fixture
def simulator(service: RunningSimulator) -> Iterator[RunningSimulator]:
    """Reset to the initial options after each test."""
    yield service
    service.ask("/switches", {"bad_key": False})
    service.ask("/options", {"limit": None, "show_metadata": True})


@pytest.fixture
def working(command: Command, simulator: RunningSimulator) -> Command:
    return replace(command, settings={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})


def doctor(command: Command, *words: str, **settings: str) -> tuple[int, Checks]:
    """The exit code, and the checks by name; of several of one name, that which is worst."""
    done = replace(command, settings={**command.settings, **settings}).run("doctor", "--json", *words)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    worst = sorted(report["checks"], key=lambda check: ["ok", "warning", "failure"].index(check["state"]))
    return done.returncode, {check["name"]: check for check in worst}


def failures(checks: Checks) -> set[str]:
    return {name for name, check in checks.items() if check["state"] == "failure"}


def test_where_all_is_well_every_line_says_so_and_no_key_is_shown(working: Command) -> None:
    assert working.run("migrate").returncode == 0
    done = working.run("doctor")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}
    names = ["python", "libraries", "settings", "queue", "queue clock", "name", "tcp", "tls", "clock", "key"]
    assert [line[9:21].strip() for line in lines] == [*names, "completions", "limits"]
    assert "OPENAI_BASE_URL=http://127.0.0.1" in done.stdout
    assert KEY not in done.stdout + done.stderr
    queue = working.folder / "metasync.db"
    assert queue.exists()


def test_nothing_is_made_and_a_queue_that_is_not_there_yet_is_no_failure(working: Command) -> None:
    code, checks = doctor(working)
    assert (code, checks["queue"]["state"]) == (0, "warning")
    assert "metasync apply" in checks["queue"]["advice"]
    assert list(working.folder.iterdir()) == []
    code, checks = doctor(working, METASYNC_QUEUE_URL="sqlite:////nowhere/at/all.db")
    assert (code, failures(checks)) == (3, {"queue"})


@pytest.mark.parametrize("store", STORES)
async def test_each_store_is_looked_at(store: str, working: Command) -> None:
    async with STORES[store](working.folder) as url:
        settings = {"METASYNC_QUEUE_URL": url}
        assert replace(working, settings={**working.settings, **settings}).run("migrate").returncode == 0
        code, checks = doctor(working, **settings)
        assert (code, checks["queue clock"]["state"]) == (0, "ok")
        assert "0 pending, 0 dead letters" in checks["queue"]["detail"]


async def test_a_different_clock_of_the_store_is_reported() -> None:
    async with new_database() as url, StoppedClock.stop(url, at=1_700_000_000.0):
        *_, check = await check_queue(Settings.model_construct(queue_url=url))
    assert (check.name, check.state) == ("queue clock", "warning")
    assert "behind ours" in check.detail


async def test_possible_losses_of_the_store_are_reported(working: Command, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server.running(tmp_path / "redis", {"appendonly": "no"}) as server:
        settings = {"METASYNC_QUEUE_URL": server.url()}
        assert replace(working, settings={**working.settings, **settings}).run("migrate").returncode == 0
        code, checks = doctor(working, **settings)
        assert (code, checks["queue"]["state"]) == (0, "warning")
        assert "appendonly" in checks["queue"]["detail"]


async def test_a_missing_schema_is_reported_and_not_created(working: Command) -> None:
    async with new_database(empty=True) as url:
        for _ in range(2):
            code, checks = doctor(working, METASYNC_QUEUE_URL=url)
            assert (code, checks["queue"]["state"]) == (0, "warning")
            assert "there is none yet" in checks["queue"]["detail"]


def test_a_store_that_does_not_answer_hides_nothing_else(working: Command) -> None:
    url = f"postgresql://me:hunter2hunter2@127.0.0.1:{free_port()}/db"
    code, checks = doctor(working, "--store-timeout", "5s", METASYNC_QUEUE_URL=url)
    assert (code, failures(checks)) == (3, {"queue"})
    assert checks["key"]["state"] == "ok"
    assert "hunter2" not in json.dumps(checks)


@pytest.mark.parametrize("settings", [{"METASYNC_LEASE": "a while"}, {"METASYNC_LAESE": "1m"}])
def test_a_bad_setting_is_a_failure_that_is_told(working: Command, settings: dict[str, str]) -> None:
    code, checks = doctor(working, **settings)
    assert (code, failures(checks)) == (3, {"settings"})
    assert next(iter(settings)) in checks["settings"]["detail"]


def test_without_a_key_the_way_is_looked_at_all_the_same(working: Command) -> None:
    code, checks = doctor(replace(working, settings={"OPENAI_BASE_URL": working.settings["OPENAI_BASE_URL"]}))
    assert (code, failures(checks)) == (3, {"key"})
    assert checks["tcp"]["state"] == "ok"


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [
        ({"bad_key": True}, 77, "HTTP 401"),
        ({"missing_scope": True}, 77, "HTTP 401"),
        ({"quota_exhausted": True}, 77, "HTTP 429"),
        ({"outage": "overloaded"}, 3, "HTTP 503"),
        ({"outage": "dropped"}, 3, "dropped"),
    ],
)
def test_a_key_that_is_refused_and_a_service_in_trouble(
    working: Command, simulator: RunningSimulator, order: dict[str, Any], code: int, words: str
) -> None:
    simulator.ask("/switches", order)
    try:
        found, checks = doctor(working, "--completion", "chatcmpl-000001")
    finally:
        simulator.ask("/switches", {name: None if name == "outage" else False for name in order})
    assert (found, "key" in failures(checks)) == (code, True)
    assert words in checks["key"]["detail"]
    assert checks["key"]["advice"]


@pytest.mark.parametrize(
    ("fault", "code"), [("html_403", 77), ("proxy_auth", 77), ("bad_gateway", 3), ("html_404", 77)]
)
def test_an_answer_of_a_proxy_is_not_taken_for_the_service(
    working: Command, simulator: RunningSimulator, fault: str, code: int
) -> None:
    simulator.ask("/fail-next", {"faults": [fault]})
    found, checks = doctor(working)
    assert (found, failures(checks)) == (code, {"key"})
    assert "<" not in checks["key"]["detail"]


def test_a_clock_that_is_wrong_is_told(working: Command, simulator: RunningSimulator) -> None:
    body = base64.b64encode(b'{"object": "list", "data": [], "has_more": false}').decode()
    for date, words in (
        ("Thu, 01 Jan 2099 00:00:00 GMT", "ahead of ours"),
        ("Sat, 01 Jan 2000 00:00:00 GMT", "behind ours"),
    ):
        simulator.ask("/fail-next", {"faults": [{"status": 200, "headers": {"Date": date}, "body": body}]})
        code, checks = doctor(working)
        assert (code, checks["clock"]["state"], checks["completions"]["state"]) == (0, "warning", "warning")
        assert words in checks["clock"]["detail"]
    simulator.ask("/fail-next", {"faults": [{"status": 200, "headers": {"Date": "yesterday"}, "body": body}]})
    assert "does not tell" in doctor(working)[1]["clock"]["detail"]


def test_the_completion_that_is_named_is_read(working: Command, simulator: RunningSimulator) -> None:
    code, checks = doctor(working, "--completion", "chatcmpl-none")
    assert (code, failures(checks)) == (3, {"completions"})
    assert "another project" in checks["completions"]["advice"]
    simulator.ask("/options", {"show_metadata": False})
    code, checks = doctor(working, "--completion", "chatcmpl-000001")
    assert (code, failures(checks)) == (3, {"completions"})
    assert "metadata_hidden" in checks["completions"]["advice"]


def test_limits_that_are_announced_are_told(working: Command, simulator: RunningSimulator) -> None:
    assert "none announced" in doctor(working)[1]["limits"]["detail"]
    simulator.ask("/options", {"limit": {"requests_per_minute": 600, "headers": "true"}})
    assert "announced: 600 requests" in doctor(working)[1]["limits"]["detail"]


def test_the_way_ends_where_it_fails(working: Command) -> None:
    port = free_port()
    code, checks = doctor(working, OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert (code, failures(checks), set(checks) & {"tls", "key"}) == (3, {"tcp"}, set())
    assert "refused" in checks["tcp"]["detail"]
    code, checks = doctor(working, OPENAI_BASE_URL="https://metasync.invalid/v1")
    assert (code, failures(checks), "tcp" in checks) == (3, {"name"}, False)


@contextmanager
def _tls_server(certificate: trustme.LeafCert) -> Iterator[int]:
    """It shakes hands, and answers nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)  # until the client hangs up, or asks in vain
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)  # ends the thread's wait
        thread.join()


def test_an_unknown_certificate_is_reported_and_a_trusted_one_is_not(working: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    with _tls_server(authority.issue_cert("127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}/v1"
        code, checks = doctor(working, OPENAI_BASE_URL=url)
        assert (code, failures(checks), "key" in checks) == (3, {"tls"}, False)
        assert "is not trusted" in checks["tls"]["detail"]
        assert "SSL_CERT_FILE" in checks["tls"]["advice"]
        code, checks = doctor(working, OPENAI_BASE_URL=url, SSL_CERT_FILE=str(file))
        assert (code, failures(checks)) == (3, {"key"})  # nothing there is the service
        assert "TLSv1" in checks["tls"]["detail"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read: No such file"), ("no certificate", "holds no certificate")]
)
def test_a_file_of_authorities_that_is_none_is_named(
    content: str | None, words: str, working: Command, tmp_path: Path
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    with _tls_server(trustme.CA().issue_cert("127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}/v1"
        _, checks = doctor(working, OPENAI_BASE_URL=url, SSL_CERT_FILE=str(file))
        assert f"SSL_CERT_FILE names {file}, which {words}" in checks["tls"]["advice"]


@pytest.mark.parametrize(
    ("issued_for", "days", "words"), [("127.0.0.1", -1, "has to renew it"), ("other.example", 1, "is the host")]
)
def test_a_certificate_that_no_authority_helps_gets_other_advice(
    issued_for: str, days: int, words: str, working: Command, tmp_path: Path
) -> None:
    authority, file = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    now = datetime.now(UTC)
    until = now + timedelta(days=days)
    certificate = authority.issue_cert(issued_for, not_before=now - timedelta(days=2), not_after=until)
    with _tls_server(certificate) as port:
        url = f"https://127.0.0.1:{port}/v1"
        code, checks = doctor(working, OPENAI_BASE_URL=url, SSL_CERT_FILE=str(file))
    assert (code, failures(checks)) == (3, {"tls"})
    assert words in checks["tls"]["advice"]
    assert "SSL_CERT_FILE" not in checks["tls"]["advice"]


def test_a_server_without_tls_is_reported(working: Command, simulator: RunningSimulator) -> None:
    url = simulator.base_url.replace("http:", "https:")
    code, checks = doctor(working, OPENAI_BASE_URL=url)
    assert (code, failures(checks)) == (3, {"tls"})


def test_a_probe_that_writes_needs_a_completion_that_is_named(working: Command) -> None:
    done = working.run("doctor", "--write-probe")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--completion ID" in done.stderr
    assert working.run("doctor", "--completion", "../files").returncode == 2


@pytest.mark.parametrize("halt", Halt)
def test_there_is_advice_for_each_reason_to_halt(halt: Halt) -> None:
    assert _HALTS[halt]
