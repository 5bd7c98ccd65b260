"""docs/results.md: the command works, and each field of a line has a row."""

import json
import re
from pathlib import Path

from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import KEY, Command, running_simulator
from worker.results import Result

PAGE = (ROOT / "docs" / "results.md").read_text()


def test_what_is_shown_works_and_the_line_has_the_fields_that_it_is_said_to_have(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(snippet("README.md", "labels.jsonl"))
    with running_simulator("--completions", "2") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        _, *words = snippet("docs/results.md", "results").split()
        done = command.run(*words)
        assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    shown = json.loads(next(line for line in PAGE.splitlines() if line.startswith('{"change":')))
    (line,) = (line for line in lines if line["completion_id"] == shown["completion_id"])
    assert list(line) == list(shown)
    varying = ("change", "batch", "request_id", "at")
    assert [line[name] for name in shown if name not in varying] == [
        shown[name] for name in shown if name not in varying
    ]


def test_every_field_has_its_row() -> None:
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in PAGE.splitlines() if row.startswith("| `")]
    assert [name for row in rows for name in row] == list(Result.__struct_fields__)
