"""The commands of docs/http.md work when pasted."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import METASYNC, Command, stopped, wait_for_event
from tests.web.test_intake import TOKEN, an_intake
from worker.web.openapi import document

PAGE = "docs/http.md"


def test_the_shown_commands_work(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(snippet("README.md", "labels.jsonl"))
    with an_intake(Command(tmp_path, {})) as (door, _):

        def paste(name: str, *command: str) -> object:
            text = snippet(PAGE, name).replace("127.0.0.1:9464", f"127.0.0.1:{door.port}")
            done = subprocess.run(
                [*command, text],
                cwd=tmp_path,
                env=Command(tmp_path, {"METASYNC_INTAKE_TOKEN": TOKEN}).environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout.replace("'", '"'))

        for name, command in (("curl", ["/bin/sh", "-ec"]), ("http-python", [sys.executable, "-c"])):
            assert paste(name, *command) == {"added": 1, "duplicates": 0, "applied_before": 0, "refused": []}
        for added in (2, 0):
            assert paste("curl-lines", "/bin/sh", "-ec") == {
                "added": added,
                "duplicates": 2 - added,
                "applied_before": 0,
                "refused": [],
            }


@pytest.mark.parametrize(
    "first",
    {
        "no answer": b"",
        "part of one": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        "a proxy without the intake": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_the_python_that_is_shown_sends_again_under_the_same_key(first: tuple[str, bytes]) -> None:
    answers = [first[1], b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"added":1}']
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        served = threads.submit(lambda: list(_serve(server, answers)))
        text = snippet(PAGE, "http-python").replace("127.0.0.1:9464", f"127.0.0.1:{server.getsockname()[1]}")
        command = Command(Path.cwd(), {"METASYNC_INTAKE_TOKEN": TOKEN})
        try:
            done = subprocess.run(
                [sys.executable, "-c", text], env=command.environment, capture_output=True, timeout=60, check=False
            )
        finally:
            server.shutdown(socket.SHUT_RDWR)
    assert (done.returncode, done.stdout) == (0, b"{'added': 1}\n"), done.stderr
    once, again = served.result()
    assert once == again


def _serve(server: socket.socket, answers: list[bytes]) -> Iterator[list[bytes]]:
    """Answer a request after the other, each on its connection; give the lines of each."""
    for answer in answers:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as request:
            head = list(iter(request.readline, b"\r\n"))
            [length] = [int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")]
            connection.sendall(answer * bool(body := request.read(length)))
            yield [*head, body]


def test_the_command_is_as_it_is_shown(tmp_path: Path) -> None:
    text = snippet(PAGE, "intake").replace("PORT=9464", "PORT=0").replace("metasync", f"exec {METASYNC}", 1)
    assert text.count(METASYNC) == 1
    words = ["/bin/sh", "-ec", text]
    environment = Command(tmp_path, {}).environment
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with stopped(process):
        assert wait_for_event(process, "web.started")["intake"]


def test_every_status_has_its_line() -> None:
    text = (ROOT / PAGE).read_text()
    told = json.loads(document())["paths"]["/changes"]["post"]["responses"]
    for status in told:
        assert HTTPStatus(int(status))
        assert f"| {status}" in text or f", {status}" in text, status
