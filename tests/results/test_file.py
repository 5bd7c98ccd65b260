"""The results file: its lines stay, are whole, and are private."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.results import ResultsFile, UnusableResults

LINE = b'{"change":1,"outcome":"applied"}\n'


def test_it_is_made_for_its_owner_alone_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        with ResultsFile(str(path)) as file:
            file.append(LINE)
    assert path.read_bytes() == LINE * 2
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [b"{", b'{"change":2', b'{"change":2,"keys":["' + b"k" * 200_000])
@pytest.mark.parametrize("before", [b"", LINE * 3])
def test_the_end_of_a_line_that_a_killed_run_began_is_taken_away(tmp_path: Path, before: bytes, torn: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(before + torn)
    with ResultsFile(str(path)) as file:
        file.append(LINE)
    assert path.read_bytes() == before + LINE


@pytest.mark.parametrize(
    "held", [b"completion_id,grade\n", b'{"completion_id": "chatcmpl-1"}', b"SQLite format 3\0", b"\n"]
)
def test_a_file_that_holds_something_else_is_left_as_it_is(tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(held)
    with pytest.raises(UnusableResults, match=r"labels\.csv: .* it holds something other than results$"):
        ResultsFile(str(path))
    assert path.read_bytes() == held


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    code = f"from worker.results import ResultsFile; ResultsFile({str(path)!r})"
    with ResultsFile(str(path)):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process writes to it" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, why in (
        (str(pipe), "no regular file"),
        ("/dev/full", "no regular file"),
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "none" / "results"), "No such file"),
        ("a\0b", "null"),
        ("-", "takes the name of a file"),
    ):
        with pytest.raises(UnusableResults, match=why):
            ResultsFile(path)


@pytest.mark.parametrize("name", ["results.jsonl.gz", "RESULTS.GZ"])
def test_a_name_that_promises_compressed_lines_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableResults, match=rf"{name}: .* not compressed, so leave \.gz out of the name$"):
        ResultsFile(str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_to_a_deleted_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(str(path)) as file:
        path.unlink()
        with pytest.raises(OSError, match="it was deleted"):
            file.append(LINE)


def test_lines_that_do_not_all_fit_leave_none_behind(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    code = f"""
import resource
from worker.results import ResultsFile
with ResultsFile({str(path)!r}) as file:
    file.append({LINE!r} * 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * {len(LINE)} + 5,) * 2)
    try:
        file.append({LINE!r} * 3)
    except OSError as error:
        print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert path.read_bytes() == LINE * 3
