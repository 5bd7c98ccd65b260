"""docs/doctor.md: the commands work, and each check has a row."""

import json
import re
from pathlib import Path
from typing import get_args

from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import KEY, Command, running_simulator
from worker.cli.checkup.findings import OfEmpty, OfNull

PAGE = (ROOT / "docs" / "doctor.md").read_text()


def test_what_is_shown_works_and_every_check_has_its_row(tmp_path: Path) -> None:
    with running_simulator("--completions", "1") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        assert command.run("migrate").returncode == 0
        _, *words = snippet("docs/doctor.md", "doctor").split()
        checks = json.loads(command.run(*words, "--json").stdout)["checks"]
    rows = [re.findall(r"`([\w ]+)`", row.split("|")[1]) for row in PAGE.splitlines() if row.startswith("| `")]
    names = [name for row in rows for name in row]
    assert [check["name"] for check in checks] == names[: len(checks)]


def test_every_effect_has_its_word() -> None:
    (null, empty) = (row for row in PAGE.splitlines() if row.startswith(("| `null as", "| `an empty")))
    assert all(f"`{word}`" in null for word in get_args(OfNull))
    assert all(f"`{word}`" in empty for word in get_args(OfEmpty))
