"""The alerts use existing metrics, and each has a runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.reference import EVERYTHING
from tests.needs import installed
from worker.api.verdict import Halt
from worker.engine import Ending
from worker.flow import ended
from worker.queue import REASONS
from worker.web.metrics import families

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
RULE_TESTS = Path(__file__).parent / "alerts_test.yaml"

_RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]


def _names() -> set[str]:
    suffixes = {"counter": "_total", "info": "_info"}
    return {family.name + suffixes.get(family.type, "") for family in families(EVERYTHING)}


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_there_are(rule: dict[str, Any]) -> None:
    asked = set(re.findall(r"\bmetasync_\w+", rule["expr"]))
    assert asked
    assert asked <= _names()


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_page_that_says_what_to_do(rule: dict[str, Any]) -> None:
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    for part in ("**What it means.**", "**What to look at.**", "**What to do.**"):
        assert part in page


def test_every_page_belongs_to_an_alert() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {rule["annotations"]["runbook"] for rule in _RULES}


def test_the_pages_name_every_reason_there_is() -> None:
    halted, dead = ((ROOT / "docs" / "runbooks" / name).read_text() for name in ("halted.md", "dead-letters.md"))
    reasons = {value for name, value in vars(ended).items() if name.isupper() and type(value) is str}
    assert set(re.findall(r"^### `(\w+)`", halted, re.MULTILINE)) == {*Halt, *reasons, Ending.STUCK, Ending.CLOSED}
    assert set(re.findall(r"^\| `(\w+)`", dead, re.MULTILINE)) == set(REASONS)


@installed("promtool", "prometheus")
def test_the_rules_fire_when_they_should() -> None:
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", str(RULE_TESTS)]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
