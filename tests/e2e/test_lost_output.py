"""A failure of standard output is told apart from a failure of the work."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

import pytest

from tests.e2e.processes import METASYNC, Command, write_changes

_GOOD = {"completion_id": "chatcmpl-1", "metadata": {"grade": "A"}}


@contextmanager
def _full() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 -- a device
        yield full


@contextmanager
def _left() -> Iterator[IO[bytes]]:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as left:
        yield left


def _said(command: Command, stdout: IO[bytes], *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [METASYNC, *words],
        cwd=command.folder,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words", [("status", "--json"), ("settings",), ("dead", "list", "--json"), ("migrate", "--sql")], ids=" ".join
)
def test_an_output_that_cannot_be_written_is_one_sentence(words: tuple[str, ...], command: Command) -> None:
    command.run("migrate")
    with _full() as full:
        code, stderr = _said(command, full, *words)
    assert (code, stderr.count("\n")) == (1, 1)
    assert stderr.startswith("metasync: standard output cannot be written (No space left on device)")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_exit_code_is_right_although_the_output_is_not_read(unbuffered: str, command: Command) -> None:
    command = replace(command, settings={**command.settings, "PYTHONUNBUFFERED": unbuffered})
    path = write_changes(command.folder / "changes.jsonl", [_GOOD, {"completion_id": ""}])
    for output in (_full, _left):
        with output() as stdout:
            assert _said(command, stdout, "enqueue", path)[0] == 3
    assert command.run("status", "--json").stdout.count('"pending": 2') == 1
