"""Asks a running worker over HTTP."""

import json
import subprocess
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any

from tests.e2e.processes import Command, wait_for_event


@dataclass(frozen=True)
class Surface:
    """The web surface of a worker at this port of the loopback interface."""

    port: int

    def post(self, path: str, body: str, **headers: str) -> tuple[int, str]:
        return self.ask(path, method="POST", body=body, **headers)

    def ask(self, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> tuple[int, str]:
        """The status and the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask_json(self, path: str) -> tuple[int, Any]:
        status, body = self.ask(path)
        return status, json.loads(body)


def serving(command: Command, **settings: str) -> Command:
    """The command, with a web surface on a free port."""
    return replace(command, settings={**command.settings, "METASYNC_HTTP_PORT": "0", **settings})


def surface_of(process: "subprocess.Popen[bytes]") -> Surface:
    """Where the process serves, once it does; by then the worker has started or will at once."""
    surface = Surface(wait_for_event(process, "web.started")["port"])
    wait_for_event(process, "worker.started")
    return surface
