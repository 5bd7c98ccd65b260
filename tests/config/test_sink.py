"""Unread log lines are held, then dropped and counted; writing never blocks the caller."""

import os
import threading

import pytest

from config import sink
from config.sink import Sink

LINE = b"x" * 1023 + b"\n"


class Reader:
    """One that takes nothing until it is asked to."""

    def __init__(self) -> None:
        self.got = b""
        self.fails = False
        self.reads = threading.Event()

    def write(self, data: memoryview) -> int:
        self.reads.wait()
        if self.fails:
            raise OSError
        self.got += data[:5_000]
        return len(data[:5_000])


def _fill(to: Sink, *, matters: bool) -> int:
    """Put lines until one is dropped; tells how many were kept."""
    before = to.dropped
    kept = -1
    while to.dropped == before:
        to.put(LINE, matters=matters)
        kept += 1
    return kept


def test_all_lines_come_out_in_their_order() -> None:
    reader = Reader()
    reader.reads.set()
    to = Sink(reader.write)
    for number in range(10_000):
        to.put(b"%d\n" % number, matters=number % 2 == 0)
    to.flush(30.0)
    assert reader.got.split() == [b"%d" % number for number in range(10_000)]
    assert to.dropped == 0


def test_without_a_reader_memory_is_bounded_and_errors_have_their_own_room() -> None:
    reader = Reader()
    to = Sink(reader.write)
    assert _fill(to, matters=False) == sink._ROOM_BYTES // len(LINE)
    assert _fill(to, matters=True) == sink._ROOM_FOR_TROUBLE_BYTES // len(LINE)
    assert to.dropped == 2
    reader.reads.set()
    to.flush(30.0)
    assert len(reader.got) == sink._ROOM_BYTES + sink._ROOM_FOR_TROUBLE_BYTES


def test_dropped_lines_are_reported_once_there_is_room() -> None:
    reader, told = Reader(), list[int]()
    to = Sink(reader.write)
    to.on_room = told.append
    _fill(to, matters=False)
    to.put(LINE, matters=False)
    reader.reads.set()
    to.flush(30.0)
    to.put(LINE)
    to.flush(30.0)
    assert told == [2]


def test_an_unwritable_line_is_dropped_and_the_next_is_tried() -> None:
    reader, told = Reader(), list[int]()
    reader.fails = True
    reader.reads.set()
    to = Sink(reader.write)
    to.on_room = told.append
    to.put(LINE)
    to.flush(30.0)
    assert (to.dropped, told) == (1, [])
    reader.fails = False
    to.put(b"again\n")
    to.flush(30.0)
    assert (reader.got, told) == (b"again\n", [1])


@pytest.mark.parametrize(("room", "kept"), [(0, b""), (3, b"one\n"), (4, b"one\n"), (6, b"one\ntw\n")])
def test_a_line_whose_end_found_no_room_is_not_joined_to_the_next(room: int, kept: bytes) -> None:
    disk = bytearray()
    room_bytes = room

    def write(data: memoryview) -> int:
        written = data[: max(0, room_bytes - len(disk))]
        if not written:
            raise OSError
        disk.extend(written)
        return len(written)

    to = Sink(write)
    to.put(b"one\ntwo\n")
    to.flush(30.0)
    to.put(b"lost\n")
    to.flush(30.0)
    room_bytes = 100
    to.put(b"three\n")
    to.flush(30.0)
    assert bytes(disk) == kept + b"three\n"


def test_the_end_waits_only_once_for_a_stuck_reader() -> None:
    to = Sink(Reader().write)
    to.put(LINE)
    to.flush(0.05)
    assert to._is_stuck
    to.flush(3_600.0)


@pytest.mark.parametrize("threads", [1, 8])
def test_many_threads_may_write(threads: int) -> None:
    reader = Reader()
    reader.reads.set()
    to = Sink(reader.write)

    def write() -> None:
        for _ in range(500):
            to.put(b"line\n")

    writing = [threading.Thread(target=write) for _ in range(threads)]
    for each in writing:
        each.start()
    for each in writing:
        each.join()
    to.flush(30.0)
    assert reader.got == b"line\n" * 500 * threads


def test_a_shared_non_blocking_pipe_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w") as stream, open(reading, "rb") as reader:  # noqa: PTH123 -- no paths
        monkeypatch.setattr("sys.stderr", stream)
        to = Sink(sink._write)
        for _ in range(200):
            to.put(LINE)
        assert reader.read(200 * len(LINE)) == LINE * 200
        to.flush(30.0)
        assert to.dropped == 0
