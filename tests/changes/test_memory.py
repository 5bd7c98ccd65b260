"""Memory stays flat for any content of a file."""

import gzip
import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.changes.reading import ids, items_of, read_file, refusals
from worker.changes.files import ChangeFile, Refusal

MEBIBYTE = 1024 * 1024
GOOD = b'{"completion_id": "c1", "metadata": {"grade": "good"}}\n'


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fail when more memory than this is in use at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes


@pytest.mark.parametrize(
    ("name", "start", "end", "refused"),
    [
        ("a.jsonl.gz", b"", b"\n" + GOOD, [1]),
        ("a.csv.gz", b"completion_id,grade\nc0,", b"\nc1,good\n", [2]),
        ("b.csv.gz", b'completion_id,grade\nc0,"', b"\nc1,good\n", [2]),
    ],
)
def test_a_line_of_100_mb_takes_little_memory_and_reading_goes_on(
    tmp_path: Path, name: str, start: bytes, end: bytes, refused: list[int]
) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(end)

    with at_most(8 * MEBIBYTE):
        items = read_file(path)

    assert ids(items) == ["c1"]
    assert [line for line, _ in refusals(items)] == refused


def test_a_line_without_end_on_standard_input_takes_little_memory() -> None:
    reading, writing = os.pipe()

    def produce() -> None:
        with os.fdopen(writing, "wb") as producer:
            producer.writelines(bytes(1_000_000) for _ in range(100))
            producer.write(b"\n" + GOOD)

    producing = threading.Thread(target=produce)
    producing.start()
    with at_most(8 * MEBIBYTE), os.fdopen(reading, "rb") as stdin, ChangeFile.open("-", stdin=stdin) as file:
        items = items_of(file)
    producing.join()

    assert ids(items) == ["c1"]
    assert refusals(items) == [(1, "the line is longer than 1 MiB")]


def test_a_quote_that_stays_open_over_100_mb_of_rows_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    row = b"c1," + b"x" * 100_000 + b"\n"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'completion_id,grade\nc0,"oops\n')
        for _ in range(1_000):
            file.write(row)

    with at_most(16 * MEBIBYTE), ChangeFile.open(str(path)) as rows:
        refused = sum(isinstance(item, Refusal) for _, item in rows)

    assert refused == 1_001


@pytest.mark.parametrize(("name", "line"), [("a.jsonl", GOOD), ("a.csv", b"c1,good\n")])
def test_memory_does_not_grow_with_the_number_of_lines(tmp_path: Path, name: str, line: bytes) -> None:
    path = tmp_path / name
    path.write_bytes((b"completion_id,grade\n" if name == "a.csv" else b"") + line * 30_000)

    with at_most(4 * MEBIBYTE), ChangeFile.open(str(path)) as file:
        count = sum(1 for _ in file)

    assert count == 30_000
