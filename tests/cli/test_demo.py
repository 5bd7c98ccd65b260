"""`metasync demo`: its output, and exit code 1 if a check fails."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.inside import run
from worker.cli import demo
from worker.cli.exits import Exit
from worker.simulator import Delay, RateLimit, Simulator


@pytest.fixture(autouse=True)
def quick(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same service, faults included, for somebody who does not watch."""
    assert not any(empty_folder.iterdir())
    limit = RateLimit(requests_per_minute=600_000, hint="ms")
    monkeypatch.setattr(demo, "_LIMIT", limit)
    monkeypatch.setattr(demo, "_LAG_SECONDS", 0.2)
    monkeypatch.setattr(demo, "_NOT_FOUND_GRACE", "1s")
    service = replace(demo._SERVICE, latency=Delay(0.0), update_latency=Delay(0.0), limit=limit)
    monkeypatch.setattr(demo, "_SERVICE", service)


def _checks(text: str) -> list[str]:
    """What is checked, with whether it holds and without what was counted."""
    return re.findall(r"^(?:ok|FAIL) +[\w -]+(?=:)", text, re.MULTILINE)


CHECKED = (
    "completions",
    "dead letters",
    "lines",
    "changes",
    "one writer",
    "retry-after",
    "batch",
    "withdrawn",
    "urgent",
    "diff",
    "back",
)


def test_all_that_it_checks_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo"]) == Exit.DONE
    shown = capsys.readouterr().out
    assert [re.split(" +", check, maxsplit=1) for check in _checks(shown)] == [["ok", name] for name in CHECKED]
    assert "1,988 added, 0 known already, 12 refused" in shown
    assert "400 of 400 have exactly the metadata that was wanted" in shown


def test_a_completion_that_is_not_as_it_was_wanted_fails_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(simulator: Simulator) -> dict[str, dict[str, str]]:
        (completion_id, metadata), *rest = held(simulator).items()
        return {completion_id: {**metadata, "by": "somebody else"}, **dict(rest)}

    held = Simulator.all_metadata
    monkeypatch.setattr(Simulator, "all_metadata", other)
    assert run(["demo"]) == Exit.INTERNAL_ERROR
    assert "FAIL  completions: 399 of 400" in capsys.readouterr().out
