"""Where no further thread starts, a command says so; it neither waits for ever nor ends with a traceback."""

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command, running_simulator

_RUN = """
import sys, threading
start, left = threading.Thread.start, {threads}
def limited(thread):
    global left
    left -= 1
    if left < 0:
        raise RuntimeError("can't start new thread")  # as it is said at a limit of processes
    start(thread)
threading.Thread.start = limited
from worker.cli.main import main
del sys.argv[0]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("threads", "words"),
    [
        (0, ("enqueue", "changes.jsonl")),
        (1, ("enqueue", "changes.jsonl")),
        (1, ("enqueue", "--strict", "changes.jsonl")),
        (0, ("enqueue", "--check", "changes.jsonl")),
        (1, ("apply", "changes.jsonl")),
        (0, ("diff", "changes.jsonl")),
        (0, ("pull", "--of", "changes.jsonl")),
        (0, ("pull", "--ids", "ids.txt")),
        (0, ("pull", "-o", "pulled.jsonl")),
    ],
)
def test_a_command_without_the_threads_that_it_needs_says_so(
    tmp_path: Path, threads: int, words: tuple[str, ...]
) -> None:
    (tmp_path / "changes.jsonl").write_text(json.dumps({"completion_id": "chatcmpl-000001", "metadata": {"g": "A"}}))
    (tmp_path / "ids.txt").write_text("chatcmpl-000001\n")
    with running_simulator("--completions", "1") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        done = Command(tmp_path, settings, (sys.executable, "-c", _RUN.format(threads=threads))).run(*words, timeout=20)

    assert done.returncode == 75, done.stderr
    assert "can't start new thread): a limit of processes or of memory is reached" in done.stderr
    assert "Traceback" not in done.stderr
