"""An unread log does not stop the work, the health checks or the end; lost lines are counted."""

import fcntl
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import Command, RunningSimulator, stopped, write_changes
from tests.web.asking import Surface

IDS = [f"chatcmpl-{number}" for number in range(3_000)]
_SETTLED_SECONDS = 120.0
_PIPE_BYTES = 4096


@contextmanager
def _fifo(folder: Path) -> Iterator[tuple[int, int]]:
    """A pipe by name that holds next to nothing: its ends for reading and for writing."""
    path = folder / "log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    writing = os.open(path, os.O_WRONLY)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def _line_of(reading: int, event: str) -> dict[str, object]:
    """Read no further than this event."""
    line = b""
    while True:
        byte = os.read(reading, 1)
        assert byte, "the log ended"
        line += byte
        if byte == b"\n":
            found = json.loads(line)
            if found["event"] == event:
                return dict(found)
            line = b""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_work_health_and_end_continue_while_the_log_is_not_read(
    log_format: str, command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"ids": IDS})
    settings = {**command.settings, "METASYNC_HTTP_PORT": "0", "METASYNC_LOG_FORMAT": log_format}
    settings["METASYNC_LOG_VALUES"] = "true"
    command = replace(command, settings=settings)
    padding = {f"key-{number}": "v" * 500 for number in range(4)}  # so that the lines are more than is held
    changes = [{"completion_id": each, "metadata": padding, "mode": "replace"} for each in IDS]
    assert command.run("enqueue", write_changes(tmp_path / "changes.jsonl", changes)).returncode == 0
    with _fifo(tmp_path) as (reading, writing), stopped(command.start("run", stderr=writing)) as process:
        port = _port(reading, log_format)
        surface = Surface(port)
        deadline = time.monotonic() + _SETTLED_SECONDS
        while (dropped := _dropped(surface)) == 0 or _pending(surface):
            assert process.poll() is None
            assert time.monotonic() < deadline, dropped
            assert surface.ask("/livez")[0] == 200
            time.sleep(0.2)
        if log_format == "json":  # the end comes without a reader, and with one who comes back
            said = _line_of(reading, "worker.log_dropped")["lines"]
            assert isinstance(said, int)
            assert dropped <= said <= _dropped(surface)  # what was under way goes on meanwhile
            threading.Thread(target=_read_all, args=(reading,), daemon=True).start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(_SETTLED_SECONDS) == 0
    assert all(each == padding for each in simulator.ask("/metadata").values())


def _port(reading: int, log_format: str) -> int:
    if log_format == "json":
        return int(str(_line_of(reading, "web.started")["port"]))
    text = b""
    while (found := re.search(rb"web\.started.*?port=(\d+)", re.sub(rb"\x1b\[\d*m", b"", text))) is None:
        text += os.read(reading, 256)
    return int(found[1])


def _metric(surface: Surface, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", surface.ask("/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


def _dropped(surface: Surface) -> float:
    return _metric(surface, "metasync_log_dropped_total")


def _pending(surface: Surface) -> bool:
    """What is in flight counts, too: a worker that is told to end gives back what it has not sent."""
    page = surface.ask("/metrics")[1]
    return any(f'metasync_queue_changes{{state="{state}"}} 0.0' not in page for state in ("due", "in_flight"))


def _read_all(reading: int) -> None:
    with suppress(OSError):  # closed
        while os.read(reading, 65_536):
            pass
