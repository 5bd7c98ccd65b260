"""How a worker reads a renewed key."""

import os
import threading
from pathlib import Path

import pytest

from config.settings import load
from worker.cli.calling import key_reader
from worker.cli.job import Job


class _Caller:
    """A client that only keeps its key."""

    key = ""

    def use_key(self, api_key: str) -> None:
        self.key = api_key


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")  # as `Thread.start` says it at a limit of processes


async def test_a_renewed_key_is_read_although_no_further_thread_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the change that happens to be sent next would have failed, and the others would get the old key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"METASYNC_SECRETS_DIR": str(tmp_path)})
    key = tmp_path / "OPENAI_API_KEY"
    key.write_text("sk-the-first")
    client = _Caller()
    read_key = key_reader(client, Job(load().settings, load, drain=False))  # type: ignore[arg-type]
    key.write_text("sk-the-second")
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", _no_thread)
        assert await read_key(True)
    assert client.key == "sk-the-second"
