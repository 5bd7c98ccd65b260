"""Asks a running worker over HTTP."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from typing import Any

from tests.e2e.processes import Command, wait_for_event


@dataclass(frozen=True)
class Surface:
    """The web surface of a worker at this port of the loopback interface.

    Args:
        source: the address that it is asked from.
        headers: of every request.
    """

    port: int
    source: str = "127.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_token(self, token: str) -> "Surface":
        """As somebody asks who shows this."""
        return replace(self, headers={"Authorization": f"Bearer {token}"})

    def order(self, path: str, what: object, **headers: str) -> tuple[int, str]:
        """Have something done, as the page does."""
        ours = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        return self.post(path, json.dumps(what), **ours, **headers)

    def post(self, path: str, body: str, **headers: str) -> tuple[int, str]:
        return self.ask(path, method="POST", body=body, **headers)

    def ask(self, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> tuple[int, str]:
        """The status and the body."""
        status, _, text = self.ask_whole(path, method=method, body=body, **headers)
        return status, text

    def ask_whole(
        self, path: str, *, method: str, body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """The status, the headers, their names in lower case, and the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(self.source, 0))
        try:
            connection.request(method, path, body=body, headers={**self.headers, **headers})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def ask_json(self, path: str) -> tuple[int, Any]:
        status, body = self.ask(path)
        return status, json.loads(body)


def serving(command: Command, **settings: str) -> Command:
    """The command, with a web surface on a free port and its link in the command's folder, where no other looks."""
    runtime = {"METASYNC_HTTP_PORT": "0", "XDG_RUNTIME_DIR": str(command.folder), "TMPDIR": str(command.folder)}
    return replace(command, settings={**command.settings, **runtime, **settings})


def link_to(command: Command) -> str:
    """What `metasync page` prints beside the only worker of this command's folder."""
    (link,) = serving(command).run("page").stdout.split()
    return link


def surface_of(process: "subprocess.Popen[bytes]") -> Surface:
    """Where the process serves, once its worker has started."""
    surface = Surface(wait_for_event(process, "web.started")["port"])
    wait_for_event(process, "worker.started")
    until = time.monotonic() + 30.0
    while "worker" in surface.ask_json("/readyz")[1].get("failing", {}):
        assert time.monotonic() < until, "the worker said that it started, and is not shown as started"
        time.sleep(0.02)
    return surface
