"""Starts commands from a process that has imported what they import, which is most of what a short command costs.

What is started is a process like any other, with signals, files and an exit code of its own: forked, where it would
have been started from nothing.
"""

import atexit
import gc
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

import worker.cli

_ON_DEMAND = ("uvloop", "worker.queue.postgres", "worker.queue.redis", "worker.queue.sqlite", "worker.web")
_ORDER_BYTES = 1_048_576
_STREAMS = 3

_starting = threading.Lock()  # tests start commands side by side


class Started(subprocess.Popen[bytes]):
    """`metasync` with these words, to be treated as if `subprocess` had started it.

    Its parent is the process that it is forked from, which tells when it has ended, and how.

    Args:
        stdin: a file or its descriptor, `subprocess.PIPE` or `subprocess.DEVNULL`.
        stdout: the same.
        stderr: the same, or `subprocess.STDOUT`.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int = subprocess.PIPE,
    ) -> None:
        self.args = ["metasync", *words]
        self.returncode: int | None = None
        # What `communicate` goes by.
        self.text_mode = False
        self._communication_started = False
        self._input: bytes | None = None
        self._sigint_wait_secs = 0.0

        input_end, self.stdin = _input(stdin)
        output_end, self.stdout = _output(stdout)
        error_end, self.stderr = (os.dup(output_end), None) if stderr == subprocess.STDOUT else _output(stderr)
        self._news, news_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiting = threading.Lock()
        order = json.dumps({"words": words, "folder": str(folder), "environment": dict(environment)})
        ends = [input_end, output_end, error_end, news_end.detach()]
        with _starting:
            socket.send_fds(_starter(), [order.encode()], ends)
        for end in ends:
            os.close(end)
        self.pid = int(self._news.recv(64))

    def poll(self) -> int | None:
        try:
            return self._wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def _wait(self, timeout: float | None) -> int:
        """Wait, as `Popen.wait` asks for it."""
        if not self._waiting.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        try:
            if self.returncode is None:
                self._news.settimeout(timeout)
                try:
                    self.returncode = int(self._news.recv(64))
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
                self._news.close()
            return self.returncode
        finally:
            self._waiting.release()


def _input(kind: IO[bytes] | int) -> tuple[int, IO[bytes] | None]:
    """The end of the process, and ours."""
    if kind == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDONLY), None
    if kind != subprocess.PIPE:
        return os.dup(kind if isinstance(kind, int) else kind.fileno()), None
    read, write = os.pipe()
    return read, os.fdopen(write, "wb")


def _output(kind: IO[bytes] | int) -> tuple[int, IO[bytes] | None]:
    """The end of the process, and ours."""
    if kind == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_WRONLY), None
    if kind != subprocess.PIPE:
        return os.dup(kind if isinstance(kind, int) else kind.fileno()), None
    read, write = os.pipe()
    return write, os.fdopen(read, "rb")


@cache
def _starter() -> socket.socket:
    """Start the process that starts the others; what takes its orders."""
    orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ORDER_BYTES)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(orders.close)  # before that
    return orders


def _serve(orders: socket.socket) -> NoReturn:
    """For each order: fork, be the command in the child, and tell its process id and then its exit code."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by what can be waited for
    while True:
        for ready in select.select([orders.fileno(), *running], [], [])[0]:
            if ready in running:
                os.close(ready)
                process, news = running.pop(ready)
                _, status = os.waitpid(process, 0)
                with news, suppress(BrokenPipeError):  # the test may have ended
                    news.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, _STREAMS + 1)
            if not order:
                sys.exit()
            process = os.fork()
            if process == 0:
                _end(_become(json.loads(order), descriptors))
            for descriptor in descriptors[:_STREAMS]:
                os.close(descriptor)
            news = socket.socket(fileno=descriptors[_STREAMS])
            news.send(str(process).encode())
            running[os.pidfd_open(process)] = process, news


def _become(order: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    """Be the command that was ordered."""
    from metasync.__main__ import main  # noqa: PLC0415 -- by name only there

    for number, descriptor in enumerate(descriptors[:_STREAMS]):
        os.dup2(descriptor, number)
    os.closerange(_STREAMS, os.sysconf("SC_OPEN_MAX"))  # what is of others
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 -- until the process ends
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = ["metasync", *order["words"]]
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    return main()


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but leave its modules to the system: to take them apart is to copy them all."""
    threading._shutdown()  # type: ignore[attr-defined]  # as `multiprocessing` does
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)  # and says what could not be written


if __name__ == "__main__":
    verbs = (module.name for module in pkgutil.iter_modules(worker.cli.__path__, "worker.cli."))
    for name in (*verbs, *_ON_DEMAND):
        import_module(name)
    gc.freeze()  # what is here is no garbage of a child's
    _serve(socket.socket(fileno=int(sys.argv[1])))
