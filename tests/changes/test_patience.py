"""Waiting for slow input: what ends it, and what is called when it lasts."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.changes.files import ChangeFile
from worker.changes.patience import Patience, Stopped, wait


@pytest.fixture
def patience() -> Iterator[Patience]:
    patience = Patience()
    yield patience
    patience.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_input_that_is_there_is_not_waited_for(patience: Patience, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"x")
    patience.interrupt_at(0.0, lambda: pytest.fail("there is input"))
    patience.wait(reading)


def test_a_wait_that_lasts_calls_once_and_goes_on(patience: Patience, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    calls = []

    def then() -> None:
        calls.append(time.monotonic())
        os.write(writing, b"x")

    due_at = time.monotonic() + 0.02
    patience.interrupt_at(due_at, then)
    patience.wait(reading)
    assert len(calls) == 1
    assert calls[0] >= due_at
    patience.wait(reading)
    assert len(calls) == 1


def test_a_time_that_has_passed_is_due_at_once_with_or_without_a_call(
    patience: Patience, pipe: tuple[int, int]
) -> None:
    reading, writing = pipe
    patience.interrupt_at(time.monotonic() - 10.0)
    threading.Timer(0.05, os.write, (writing, b"x")).start()
    patience.wait(reading)
    assert os.read(reading, 1) == b"x"


def test_what_is_not_due_any_more_is_not_called(patience: Patience, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    patience.interrupt_at(time.monotonic() + 0.01, lambda: pytest.fail("it was taken back"))
    patience.interrupt_at(None)
    threading.Timer(0.1, os.write, (writing, b"x")).start()
    patience.wait(reading)


def test_another_thread_ends_this_wait_and_every_later_one(patience: Patience, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    patience.check()
    threading.Timer(0.01, patience.stop).start()
    with pytest.raises(Stopped):
        patience.wait(reading)
    os.write(writing, b"x")
    with pytest.raises(Stopped):
        patience.wait(reading)
    with pytest.raises(Stopped):
        patience.check()


def test_ending_it_any_number_of_times_is_ending_it_once(patience: Patience) -> None:
    for _ in range(70_000):  # a pipe holds less, and the next byte would have to wait
        patience.stop()
    assert patience.is_stopped


def test_nothing_of_it_is_left_open() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    patience = Patience()
    patience.close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_file_that_never_comes_is_waited_for_with_patience(tmp_path: Path, patience: Patience) -> None:
    path = tmp_path / "labels.jsonl"
    os.mkfifo(path)
    patience.interrupt_at(time.monotonic(), patience.stop)
    with pytest.raises(Stopped):
        ChangeFile.open(str(path), patience=patience)


def test_a_socket_that_could_be_written_to_has_no_input_for_that(patience: Patience) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        patience.interrupt_at(time.monotonic(), patience.stop)
        with pytest.raises(Stopped):
            patience.wait(ours.fileno())
        threading.Timer(0.05, theirs.send, (b"x",)).start()
        wait(ours.fileno())
        assert ours.recv(1, socket.MSG_DONTWAIT) == b"x"
