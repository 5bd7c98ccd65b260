"""A start imports only what the command needs, since it may run every minute."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, write_changes

_SLOW_TO_IMPORT = {"aiohttp", "tenacity", "tqdm", "prometheus_client", "worker.engine", "worker.api"}

_RUN = """
import json, sys
from worker.cli.main import main
try:
    code = main({words})
except SystemExit as end:
    code = end.code
json.dump([code, sorted(sys.modules)], open("imported.json", "w"))
"""


def _imported(command: Command, *words: str) -> set[str]:
    """The modules that the command imports on its way to exit code 0."""
    subprocess.run(
        [sys.executable, "-c", _RUN.format(words=list(words))],
        cwd=command.folder,
        env=command.environment,
        check=True,
        capture_output=True,
    )
    code, modules = json.loads((command.folder / "imported.json").read_text())
    assert code == 0
    return set(modules)


def test_help_imports_neither_the_settings_nor_a_loop(command: Command) -> None:
    assert not _imported(command, "--help") & (
        _SLOW_TO_IMPORT | {"pydantic", "asyncio", "structlog", "msgspec", "shtab", "importlib.metadata", "worker.queue"}
    )


@pytest.mark.parametrize("words", [("status",), ("run", "--drain")])
def test_an_empty_queue_is_seen_without_what_only_work_needs(command: Command, words: tuple[str, ...]) -> None:
    assert command.run("migrate").returncode == 0
    assert not _imported(replace(command, settings={"OPENAI_API_KEY": KEY}), *words) & _SLOW_TO_IMPORT


def test_a_drain_of_an_empty_queue_says_what_any_other_says_in_the_end(command: Command, tmp_path: Path) -> None:
    with running_simulator() as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
        working = replace(command, settings=settings)
        empty = working.run("run", "--drain")
        simulator.ask("/seed", {"ids": ["chatcmpl-1"]})
        changes = [{"completion_id": "chatcmpl-1", "metadata": {"g": "A"}, "mode": "replace"}]
        working.run("enqueue", write_changes(tmp_path / "changes.jsonl", changes))
        full = working.run("run", "--drain")
    assert empty.returncode == full.returncode == 0, full.stderr
    first, last = (json.loads(run.stderr.splitlines()[-1]) for run in (empty, full))
    assert (first["event"], first["ending"], first["applied"]) == ("run.summary", "drained", 0)
    assert last["applied"] == 1
    assert first.keys() == last.keys()
