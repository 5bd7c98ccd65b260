"""An unusable service: the run ends, says why, and leaves the pending change unchanged."""

import json
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread

import pytest
import trustme

from tests.e2e.processes import KEY, Command, running_simulator, write_changes

CHANGE = {"completion_id": "chatcmpl-1", "metadata": {"grade": "A"}}


@dataclass(frozen=True)
class Trouble:
    """Why nothing works, and how that is told.

    Args:
        words: what stands in the error that is logged.
    """

    base_url: str
    exit_code: int
    reason: str
    words: str


@contextmanager
def _refused(_: Path) -> Iterator[Trouble]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield Trouble(f"http://127.0.0.1:{port}/v1", 75, "outage", f"no connection to 127.0.0.1:{port}: Connection refused")


@contextmanager
def _untrusted(_: Path) -> Iterator[Trouble]:
    """A server with a certificate of an unknown authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        Thread(target=_shake_hands, args=(server, context), daemon=True).start()
        words = f"the certificate of 127.0.0.1:{port} is not trusted: "
        yield Trouble(f"https://127.0.0.1:{port}/v1", 75, "outage", words)
        server.shutdown(socket.SHUT_RDWR)  # ends the thread's wait


def _shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:  # the client hangs up, as it should
                continue


@contextmanager
def _unresolved(_: Path) -> Iterator[Trouble]:
    yield Trouble("https://metasync.invalid/v1", 75, "outage", "the name metasync.invalid was not resolved: ")


@contextmanager
def _bad_key(_: Path) -> Iterator[Trouble]:
    with running_simulator("--api-key", "sk-another-0123456789") as simulator:
        yield Trouble(simulator.base_url, 77, "unauthorized", "HTTP 401 Unauthorized: invalid_api_key: ")


@contextmanager
def _wrong_path(_: Path) -> Iterator[Trouble]:
    with running_simulator() as simulator:
        yield Trouble(simulator.base_url + "/oops", 77, "wrong_url", "HTTP 404 Not Found: ")


@pytest.mark.parametrize("verb", ["run", "apply"])
@pytest.mark.parametrize("trouble_of", [_refused, _untrusted, _unresolved, _bad_key, _wrong_path])
def test_a_run_ends_with_the_reason_in_words_and_the_change_is_as_it_was(
    trouble_of: Callable[[Path], AbstractContextManager[Trouble]], verb: str, tmp_path: Path
) -> None:
    with trouble_of(tmp_path) as trouble, ThreadPoolExecutor() as pool:
        logged = pool.submit(_run, tmp_path / "json", verb, trouble, "json")
        shown = pool.submit(_run, tmp_path / "console", verb, trouble, "console")
        for done in (logged.result(), shown.result()):
            assert done.returncode == trouble.exit_code, done.stderr
            assert KEY not in done.stderr + done.stdout
            assert "Traceback" not in done.stderr
        _tells(logged.result(), trouble)
        [line] = [line for line in shown.result().stderr.splitlines() if "worker.halted" in line]
        assert trouble.words in line
        assert f"reason={trouble.reason}" in line
    for form in ("json", "console"):
        _is_as_it_was(tmp_path / form)


def _run(folder: Path, verb: str, trouble: Trouble, log_format: str) -> CompletedProcess[str]:
    """Enqueue the change and drain, in a folder of its own."""
    folder.mkdir()
    settings = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": trouble.base_url,
        "METASYNC_HALT_TIMEOUT": "3s",
        "METASYNC_LOG_FORMAT": log_format,
    }
    command, changes = Command(folder, settings), write_changes(folder / "changes.jsonl", [CHANGE])
    if verb == "apply":
        return command.run("apply", changes)
    assert command.run("enqueue", changes).returncode == 0
    return command.run("run", "--drain")


def _tells(done: CompletedProcess[str], trouble: Trouble) -> None:
    """The log says it when the work halts, and once more in the end."""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    [halted] = [event for event in events if event["event"] == "worker.halted"]
    assert halted["reason"] == trouble.reason
    assert trouble.words in halted["error"]
    assert events[-1]["event"] == "run.summary"
    assert (events[-1]["applied"], events[-1]["dead"], events[-1]["halted"]) == (0, 0, trouble.reason)
    assert trouble.words in events[-1]["error"]


def _is_as_it_was(folder: Path) -> None:
    """Assert that the change is pending, not leased, and without a counted attempt."""
    status = json.loads(Command(folder, {}).run("status", "--json").stdout)
    assert (status["pending"], status["in_flight"], status["dead"]) == (1, 0, 0)
    with closing(sqlite3.connect(folder / "metasync.db")) as file:
        [(trials,)] = file.execute("SELECT trials FROM change")
    assert trials is None or json.loads(trials)[1] == 0
