"""An interrupted intake: exactly what it reports is stored, and the rest can be resumed."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.processes import METASYNC, Command, stopped

LINES = 30_000
_SAID = re.compile(r"([\d,]+) added, (?:[\d,]+ known already, )?([\d,]+) refused, up to labels\.jsonl:(\d+)")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A long file without change_ids, every thousandth line of which is refused."""
    path = tmp_path / "labels.jsonl"
    with path.open("w") as file:
        for number in range(1, LINES + 1):
            metadata = {"n": str(number)} if number % 1_000 else {"n": number}
            file.write(json.dumps({"completion_id": f"c{number}", "metadata": metadata}) + "\n")
    return path


def stored(folder: Path) -> list[int]:
    """Which lines are in the queue, in its order."""
    if not (folder / "metasync.db").exists():
        return []
    with closing(sqlite3.connect(folder / "metasync.db")) as queue:
        return [int(number) for (number,) in queue.execute("SELECT metadata ->> 'n' FROM change ORDER BY id")]


def good(first: int, last: int) -> list[int]:
    return [number for number in range(first, last + 1) if number % 1_000]


def check_account(folder: Path, code: int, stderr: str) -> int:
    """Hold what was said against what is stored; returns the line that was reached."""
    assert "Traceback" not in stderr
    found = stored(folder)
    said = _SAID.search(stderr)
    if said is None:
        assert "nothing was stored" in stderr
        assert found == []
        return 0
    added, refused, last = (int(text.replace(",", "")) for text in said.groups())
    assert code == 75
    assert found == good(1, last)
    assert (added, refused) == (len(found), last - len(found))
    return last


def resume(command: Command, last: int) -> None:
    done = command.run("enqueue", "--resume-from", str(last), "labels.jsonl")
    assert done.returncode == (3 if last < LINES else 0), done.stderr  # the last line of all is a refused one
    assert stored(command.folder) == good(1, LINES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_is_obeyed_and_what_is_in_is_said(
    command: Command, tmp_path: Path, labels: Path, number: signal.Signals
) -> None:
    with stopped(command.start("enqueue", str(labels.name))) as process:
        _wait_until_something_is_in(tmp_path)
        time.sleep(random.uniform(0.0, 0.2))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    if process.returncode == 3:  # it was faster
        assert stored(tmp_path) == good(1, LINES)
        return
    assert "interrupted: " in stderr.decode()
    resume(command, check_account(tmp_path, process.returncode, stderr.decode()))


def _wait_until_something_is_in(folder: Path) -> None:
    while True:
        try:
            if stored(folder):
                return
        except sqlite3.OperationalError:  # the queue is being made
            continue


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_obeyed_while_standard_input_is_idle_and_what_came_before_is_in(
    command: Command, tmp_path: Path, number: signal.Signals
) -> None:
    with stopped(command.start("enqueue", "-", stdin=subprocess.PIPE)) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"completion_id": "c1", "metadata": {"n": "1"}}\n')
        process.stdin.flush()
        _wait_until_something_is_in(tmp_path)  # though the producer has not ended
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(60) == 75

    assert said.startswith("interrupted: 1 added, 0 refused, up to <stdin>:1")


def limited(command: Command, bytes_: int, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run with a limit on the size of files, which stands in for a disk that is full."""
    script = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_}, {bytes_}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, METASYNC, *words],
        cwd=command.folder,
        env=command.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("limit_bytes", [700_000, 1_500_000])
def test_a_disk_that_is_full_in_the_middle(command: Command, tmp_path: Path, labels: Path, limit_bytes: int) -> None:
    assert command.run("migrate").returncode == 0

    done = limited(command, limit_bytes, "enqueue", labels.name)

    assert done.returncode in {2, 75}
    assert "cannot be written" in done.stderr
    resume(command, check_account(tmp_path, done.returncode, done.stderr))


def test_a_rejects_file_that_cannot_be_written_ends_it_before_what_it_should_hold(
    command: Command, tmp_path: Path, labels: Path
) -> None:
    done = command.run("enqueue", "--rejects", "/dev/full", labels.name)

    assert done.returncode == 2
    assert "/dev/full: refused lines cannot be written there: No space left on device" in done.stderr
    assert check_account(tmp_path, done.returncode, done.stderr) == 0


def test_a_rejects_file_that_is_full_in_the_middle_is_gone_on_with(
    command: Command, tmp_path: Path, labels: Path
) -> None:
    os.mkfifo(tmp_path / "rejects")
    taken: list[bytes] = []

    def take_some() -> None:
        with (tmp_path / "rejects").open("rb") as pipe:
            taken.append(pipe.readline())

    thread = threading.Thread(target=take_some)
    thread.start()
    done = command.run("enqueue", "--rejects", "rejects", labels.name)
    thread.join()

    assert json.loads(taken[0])["line"] == 1_000
    assert "refused lines cannot be written there: Broken pipe" in done.stderr
    last = check_account(tmp_path, done.returncode, done.stderr)
    (tmp_path / "rejects").unlink()
    again = command.run("enqueue", "--rejects", "rejects", "--resume-from", str(last), labels.name)
    assert again.returncode == 3
    assert stored(tmp_path) == good(1, LINES)
    rejected = [json.loads(line)["line"] for line in (tmp_path / "rejects").read_text().splitlines()]
    assert rejected == [number for number in range(last + 1, LINES + 1) if number % 1_000 == 0]


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "2>&-", ">&- 2>&-", "| true"])
def test_a_caller_that_ignores_the_stop_changes_nothing(command: Command, tmp_path: Path, redirection: str) -> None:
    (tmp_path / "labels.jsonl").write_text('{"completion_id": "c1", "metadata": {"n": "1"}}\n')
    script = f'{METASYNC} enqueue labels.jsonl {redirection}; echo "${{PIPESTATUS[0]}}" >code'

    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=tmp_path, env=command.environment, capture_output=True, text=True, check=False
    )

    assert (tmp_path / "code").read_text() == "0\n"
    assert stored(tmp_path) == [1]
    if redirection in {">&-", ">/dev/full"}:
        assert done.stderr.splitlines()[0] == "1 added, 0 known already, 0 refused"


def test_strict_takes_in_what_was_checked_and_nothing_that_comes_later(command: Command, tmp_path: Path) -> None:
    line = b'{"completion_id": "c1", "metadata": {"n": "%d"}}\n'
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.jsonl").write_bytes(line % 1)
    with stopped(command.start("enqueue", "--strict", "--format", "jsonl", "a.jsonl", "pipe")) as process:
        with (tmp_path / "pipe").open("wb") as pipe:  # which it opens when it has read the file before
            with (tmp_path / "a.jsonl").open("ab") as file:
                file.write(b"nonsense\n")
            pipe.write(line % 2)
        _, stderr = process.communicate(timeout=60)

    assert (process.returncode, stderr) == (0, b"")
    assert stored(tmp_path) == [1, 2]


def test_many_files_do_not_take_many_descriptors_even_if_they_are_read_twice(command: Command, tmp_path: Path) -> None:
    names = [f"{number}.csv" for number in range(300)]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"completion_id,n\nc{number},{number}\n")
    script = f"ulimit -n 64; exec {METASYNC} enqueue --strict --json {' '.join(names)}"

    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=tmp_path, env=command.environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert stored(tmp_path) == list(range(300))
