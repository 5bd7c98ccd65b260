"""Runs commands from a process that has imported what they import, which is most of what a short command costs.

What runs is a process like any other, with signals, files and an exit code of its own: forked, where it would have been
started from nothing.
"""

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import worker.cli

_ON_DEMAND = ("uvloop", "worker.queue.postgres", "worker.queue.redis", "worker.queue.sqlite", "worker.web")
_ORDER_BYTES = 1_048_576

_idle: list["_Starter"] = []


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run `metasync` with these words to its end.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    order = {"words": words, "folder": str(folder), "environment": dict(environment)}
    with (
        Path(os.devnull).open("rb") as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        _taken() as starter,
    ):
        code = starter.run(json.dumps(order).encode(), [each.fileno() for each in (nothing, out, err)], timeout_seconds)
        if code is None:
            raise subprocess.TimeoutExpired(["metasync", *words], timeout_seconds)
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess(["metasync", *words], code, out.read(), err.read())


@contextmanager
def _taken() -> Iterator["_Starter"]:
    """One that nothing else uses: tests run commands side by side."""
    starter = _idle.pop() if _idle else _Starter()
    yield starter
    _idle.append(starter)


class _Starter:
    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ORDER_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._end)

    def run(self, order: bytes, descriptors: Sequence[int], timeout_seconds: float) -> int | None:
        """The exit code; None: it was killed, as it took too long."""
        socket.send_fds(self._orders, [order], descriptors)
        process = int(self._orders.recv(64))
        self._orders.settimeout(timeout_seconds)
        try:
            return int(self._orders.recv(64))
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            self._orders.settimeout(None)
            self._orders.recv(64)
            return None
        finally:
            self._orders.settimeout(None)

    def _end(self) -> None:
        self._orders.close()
        self._process.wait()


def _serve(orders: socket.socket) -> NoReturn:
    """For each order: fork, be the command in the child, and tell its process id and then its exit code."""
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 3)
        if not order:
            sys.exit()
        process = os.fork()
        if process == 0:
            orders.close()
            sys.exit(_become(json.loads(order), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(process).encode())
        _, status = os.waitpid(process, 0)
        orders.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    """Be the command that was ordered."""
    from metasync.__main__ import main  # noqa: PLC0415 -- by name only there

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 -- until the process ends
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = ["metasync", *order["words"]]
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    return main()


if __name__ == "__main__":
    verbs = (module.name for module in pkgutil.iter_modules(worker.cli.__path__, "worker.cli."))
    for name in (*verbs, *_ON_DEMAND):
        import_module(name)
    gc.freeze()  # what is here is no garbage of a child's
    _serve(socket.socket(fileno=int(sys.argv[1])))
