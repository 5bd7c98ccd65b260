"""Where no temporary file can be written, a command that needs one says so, and the others work."""

import json
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command

_CHANGE = {"completion_id": "c-1", "metadata": {"grade": "A"}}
# What cannot write to any file finds no folder for temporary ones.
_WRITING_NOTHING = ("sh", "-c", 'ulimit -f 0 && exec "$@"', "sh")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    (tmp_path / "changes.jsonl").write_text(json.dumps(_CHANGE))
    settings = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "METASYNC_QUEUE_URL": "memory:",
        "METASYNC_LOG_FORMAT": "json",
    }
    return Command(tmp_path, settings, _WRITING_NOTHING)


@pytest.mark.parametrize(
    "words",
    [
        ("diff", "changes.jsonl"),
        ("pull", "--of", "changes.jsonl"),
        ("enqueue", "--check", "changes.jsonl"),
        ("enqueue", "--strict", "changes.jsonl"),
        ("enqueue", "--strict", "-"),
        ("demo",),
    ],
)
def test_a_command_that_needs_a_temporary_file_says_that_there_is_no_place(command: Command, words: list[str]) -> None:
    done = command.run(*words, stdin=json.dumps(_CHANGE).encode())

    assert done.returncode == 75, done.stderr
    assert "metasync: the temporary file cannot be written: " in done.stderr
    assert "TMPDIR names another place\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_said_is_in_the_json_too(command: Command) -> None:
    for words in (("diff", "--summary"), ("enqueue", "--check"), ("enqueue", "--strict")):
        said = json.loads(command.run(*words, "--json", "changes.jsonl").stdout)
        assert said["exit_code"] == 75
        assert "the temporary file cannot be written" in said["error"]


def test_a_worker_is_looked_for_without_temporary_files(command: Command) -> None:
    done = command.run("page")

    assert (done.returncode, "no worker of this user" in done.stderr) == (2, True), done.stderr
