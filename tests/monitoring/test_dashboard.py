"""The dashboard uses existing metrics and labels, and every panel has a description."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.reference import EVERYTHING
from tests.needs import installed
from worker.web.metrics import families

ROOT = Path(__file__).parents[2]
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/metasync.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]

_SERIES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}
_OF_THE_SCRAPE = {"job", "instance", "le"}
_SHOWN = [
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]),
]


def _labels() -> dict[str, set[str]]:
    """By the name of each series."""
    return {
        family.name + suffix: set(family._labelnames) | _OF_THE_SCRAPE  # type: ignore[attr-defined]  # as our code gives them
        for family in families(EVERYTHING)
        for suffix in _SERIES[family.type]
    }


@pytest.mark.parametrize(("name", "expression"), _SHOWN)
def test_every_metric_that_is_asked_for_is_there_with_its_labels(name: str, expression: str) -> None:
    known = _labels()
    asked = set(re.findall(r"\bmetasync_\w+", expression))
    assert asked, name
    assert asked <= known.keys()
    matched = {
        label for inside in re.findall(r"\{(.*?)\}", expression) for label in re.findall(r"(\w+)\s*(?:=|!)", inside)
    }
    grouped = {label.strip() for inside in re.findall(r"\bby \((.*?)\)", expression) for label in inside.split(",")}
    assert matched | grouped <= set.union(*(known[each] for each in asked))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= set(re.findall(r"\w+", target["expr"])) | {"instance"}


def test_no_two_panels_lie_on_each_other_and_all_are_within_the_grid() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_a_runbook_that_a_panel_names_is_there() -> None:
    named = {page for panel in PANELS for page in re.findall(r"[\w-]+\.md", panel["description"])}
    assert named
    assert all((ROOT / "docs" / "runbooks" / page).exists() for page in named)


@installed("promtool", "prometheus")
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    fitted = [
        target["expr"].replace("$__rate_interval", "5m").replace("$job", "metasync")
        for panel in PANELS
        for target in panel["targets"]
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(fitted)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    words = ["promtool", "check", "rules", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
