"""The commands of docs/batches.md work when pasted, and its figures are right."""

import json
import re
import subprocess
from pathlib import Path

from config.settings import Settings
from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import METASYNC, Command
from worker.cli.batch import _SAMPLE
from worker.queue import MAX_BATCH_NAME_LENGTH
from worker.queue.batch import MAX_FINISHED_BATCHES, MAX_REMEMBERED

PAGE = "docs/batches.md"


def test_the_shown_commands_work(tmp_path: Path) -> None:
    command = Command(tmp_path, {})
    (tmp_path / "labels.jsonl").write_text(snippet("README.md", "labels.jsonl"))
    text = snippet(PAGE, "batches").replace("15m", "0")
    done = subprocess.run(
        ["/bin/bash", "-ec", text],
        cwd=command.folder,
        env=command.environment | {"PATH": f"{Path(METASYNC).parent}:{command.environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("2 withdrawn\n")
    [batch] = json.loads(command.run("batch", "list", "--json").stdout)
    assert (batch["name"], batch["withdrawn"]) == ("labels-monday", 2)


def test_the_figures_are_those_of_the_code() -> None:
    text = (ROOT / PAGE).read_text()
    assert f"{MAX_BATCH_NAME_LENGTH} letters" in text
    assert f"| {MAX_FINISHED_BATCHES:,}, the newest |" in text
    assert text.count(f"| {MAX_REMEMBERED // 1_000_000} million |") == 2
    assert (_SAMPLE, Settings.model_fields["keep"].default) == (5, 7 * 86_400)
    assert re.search(r"METASYNC_KEEP` \(7 days\)", text)
