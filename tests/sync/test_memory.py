"""Memory does not grow with what is pulled or compared: each in a process with a limit."""

import json
from pathlib import Path

import pytest

from tests.e2e.bounded import memory_bound
from tests.e2e.processes import KEY, Command, running_simulator

COUNT = 2_000
MEBIBYTES = 96
VALUE = "\U0001f600" * 512  # four bytes each, in memory as in a file


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "-o", "pulled.jsonl"),
        ("pull", "-o", "pulled.jsonl", "--of", "wanted.jsonl"),
        ("diff", "wanted.jsonl", "--summary", "--read-lag", "1ms"),
    ],
)
def test_many_completions_get_through_a_small_pod(tmp_path: Path, words: tuple[str, ...]) -> None:
    """All that the maps hold together would not fit: 32 KB each."""
    metadata = {f"key-{number:02d}": VALUE for number in range(16)}
    with (tmp_path / "wanted.jsonl").open("w") as file:
        for number in range(1, COUNT + 1):
            line = {"completion_id": f"chatcmpl-{number:06d}", "metadata": metadata}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with (
        running_simulator("--completions", str(COUNT)) as simulator,
        memory_bound(MEBIBYTES) as bounded,
    ):
        simulator.ask("/seed", {"ids": [f"chatcmpl-{number:06d}" for number in range(1, 101)], "metadata": metadata})
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
        done = Command(tmp_path, settings, bounded).run(*words, timeout=600)
    assert done.returncode == (3 if "diff" in words else 0), done.stderr
