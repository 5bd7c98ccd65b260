import asyncio
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import METASYNC, Command, write_changes
from tests.queue.helpers import claim, finished
from worker import open_queue

GOOD = {"completion_id": "chatcmpl-1", "metadata": {"grade": "A"}, "change_id": "c-1"}


def _pending(command: Command) -> int:
    return int(json.loads(command.run("status", "--json").stdout)["pending"])


def test_good_lines_go_in_and_bad_ones_are_named(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f'{json.dumps(GOOD)}\nnonsense\n{{"completion_id": "../x", "metadata": {{}}}}\n')
    done = command.run("enqueue", "labels.jsonl")
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == "1 added, 0 known already, 2 refused"
    assert "labels.jsonl:2: not JSON" in done.stderr
    assert "labels.jsonl:3: completion_id '../x' is not one" in done.stderr
    assert _pending(command) == 1


def test_the_counts_as_json(command: Command, tmp_path: Path) -> None:
    write_changes(tmp_path / "labels.jsonl", [GOOD, GOOD])
    done = command.run("enqueue", "--json", "labels.jsonl")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["exit_code"]) == (0, 0)
    assert (shown["added"], shown["duplicates"], shown["refused"], shown["error"]) == (1, 1, 0, None)
    assert shown["up_to"] == {"file": "labels.jsonl", "line": 2}


def test_a_second_run_of_the_same_file_adds_nothing_while_it_is_pending(command: Command, tmp_path: Path) -> None:
    write_changes(tmp_path / "labels.jsonl", [GOOD | {"change_id": f"c-{number}"} for number in range(5_000)])
    assert command.run("enqueue", "labels.jsonl").stdout.startswith("5,000 added")
    assert command.run("enqueue", "labels.jsonl").stdout.splitlines()[0] == "0 added, 5,000 known already, 0 refused"
    assert _pending(command) == 5_000


def test_a_correction_under_the_change_id_of_what_was_applied_is_said_not_to_go_in(
    command: Command, tmp_path: Path
) -> None:
    async def apply() -> None:
        async with open_queue(f"sqlite:///{tmp_path}/metasync.db") as queue:
            await queue.put(GOOD | {"change_id": "label-1"})
            assert await queue.settle([finished(each) for each in await claim(queue)], remember=True) == []

    asyncio.run(apply())
    corrected = GOOD | {"change_id": "label-1", "metadata": {"g": "corrected"}}
    write_changes(tmp_path / "labels.jsonl", [corrected, GOOD | {"change_id": "label-2"}])
    done = command.run("enqueue", "labels.jsonl")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "1 added, 1 known already (1 applied before), 0 refused",
    )
    assert done.stderr == (
        "1 were not stored: a change was applied under their change_id before, whatever it said;"
        " a correction needs a change_id of its own\n"
    )
    told = json.loads(command.run("enqueue", "labels.jsonl", "--json").stdout)
    assert (told["duplicates"], told["applied_before"], told["pending_elsewhere"]) == (2, 1, 1)


@pytest.mark.parametrize("strict_input", ["file", "stdin"])
def test_strict_keeps_everything_out(command: Command, tmp_path: Path, strict_input: str) -> None:
    text = f"{json.dumps(GOOD)}\nnonsense\n"
    (tmp_path / "labels.jsonl").write_text(text)
    if strict_input == "file":
        done = command.run("enqueue", "--strict", "labels.jsonl")
    else:
        done = command.run("enqueue", "--strict", "-", stdin=text.encode())
    assert done.returncode == 2
    assert "nothing was stored" in done.stderr
    assert _pending(command) == 0


@pytest.mark.parametrize("strict_input", ["file", "stdin"])
def test_strict_lets_good_files_in(command: Command, tmp_path: Path, strict_input: str) -> None:
    write_changes(tmp_path / "labels.jsonl", [GOOD])
    if strict_input == "file":
        done = command.run("enqueue", "--strict", "labels.jsonl")
    else:
        done = command.run("enqueue", "--strict", "-", stdin=json.dumps(GOOD).encode())
    assert (done.returncode, _pending(command)) == (0, 1)


def test_rejects_can_be_repaired_and_enqueued(command: Command, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"completion_id": "chatcmpl-1", "metadata": {"grade": 1}}\n')
    assert command.run("enqueue", "--rejects", "rejects.jsonl", "labels.jsonl").returncode == 3
    rejects = tmp_path / "rejects.jsonl"
    [entry] = map(json.loads, rejects.read_text().splitlines())
    assert (entry["file"], entry["line"]) == ("labels.jsonl", 1)
    rejects.write_text(rejects.read_text().replace('\\"grade\\": 1', '\\"grade\\": \\"1\\"'))
    assert command.run("enqueue", "rejects.jsonl").stdout.splitlines()[0] == "1 added, 0 known already, 0 refused"


def test_files_of_every_form_go_in_one_after_the_other(command: Command, tmp_path: Path) -> None:
    write_changes(tmp_path / "a.ndjson", [GOOD])
    (tmp_path / "b.csv").write_text("completion_id,grade,metadata.mode\nchatcmpl-2,B,fast\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD | {"change_id": "c-2"}).encode()))
    done = command.run(
        "enqueue", "a.ndjson", "b.csv", "c.jsonl.gz", "-", stdin=json.dumps(GOOD | {"change_id": None}).encode()
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "4 added, 0 known already, 0 refused")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jsonl", None, "there is no such file"),
        ("no-id.csv", b"id,grade\n1,A\n", "completion_id"),
        ("labels.xlsx", b"x", "unknown suffix"),
        ("labels.jsonl.gz", b"{}", "not gzip"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_stored(
    command: Command, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    write_changes(tmp_path / "good.jsonl", [GOOD])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = command.run("enqueue", "good.jsonl", name)
    assert done.returncode == 2
    assert done.stderr.startswith(name)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert _pending(command) == 0


def test_memory_stays_flat_over_a_long_file(command: Command, tmp_path: Path) -> None:
    with (tmp_path / "long.jsonl").open("w") as file:
        for number in range(150_000):
            file.write(f'{{"completion_id":"chatcmpl-{number % 20_000}","metadata":{{"grade":"A","n":"{number}"}}}}\n')
    script = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, METASYNC, "enqueue", "long.jsonl"],
        cwd=tmp_path,
        env=command.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, peak_kib = map(int, done.stdout.split())
    assert code == 0
    assert peak_kib < 120 * 1024
    assert _pending(command) == 150_000


def test_a_full_disk_is_one_sentence_and_nothing_is_half_stored(command: Command, tmp_path: Path) -> None:
    assert command.run("migrate").returncode == 0
    write_changes(
        tmp_path / "labels.jsonl", [GOOD | {"change_id": f"c-{n}", "metadata": {"n": "x" * 500}} for n in range(4_000)]
    )
    # A limit on the size of files that this process may write stands in for the disk.
    script = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, METASYNC, "enqueue", "labels.jsonl"],
        cwd=tmp_path,
        env=command.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    pending = _pending(command)
    assert pending in {0, 4_000}
    assert command.run("enqueue", "labels.jsonl").returncode == 0
    assert _pending(command) == 4_000
    assert (tmp_path / "metasync.db").stat().st_size > 1_000_000


CONFLICT = "change_id 'c-1' is pending with other content: give this change another id"


def test_other_content_under_a_pending_change_id_is_named_by_its_line(command: Command, tmp_path: Path) -> None:
    write_changes(tmp_path / "labels.jsonl", [GOOD, GOOD | {"mode": "replace"}, GOOD, GOOD | {"change_id": "c-2"}])
    done = command.run("enqueue", "labels.jsonl")
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "2 added, 1 known already, 1 refused")
    assert f"labels.jsonl:2: {CONFLICT}" in done.stderr
    again = command.run("enqueue", "labels.jsonl")
    assert (again.returncode, again.stdout.splitlines()[0]) == (3, "0 added, 3 known already, 1 refused")


@pytest.mark.parametrize("where", ["the file", "the queue"])
def test_strict_stores_nothing_where_a_change_id_conflicts(command: Command, tmp_path: Path, where: str) -> None:
    others = [{"completion_id": f"chatcmpl-{i}", "metadata": {}, "change_id": f"x-{i}"} for i in range(1_100)]
    first = write_changes(tmp_path / "first.jsonl", [GOOD])
    if where == "the queue":
        assert command.run("enqueue", first).returncode == 0
    second = write_changes(tmp_path / "second.jsonl", [*others, GOOD | {"metadata": {"grade": "B"}}])

    done = command.run("enqueue", "--strict", *([second] if where == "the queue" else [first, second]))

    assert done.returncode == 2
    assert f"second.jsonl:1101: {CONFLICT}" in done.stderr
    assert "nothing was stored: 1 line refused" in done.stderr
    assert _pending(command) == (1 if where == "the queue" else 0)
