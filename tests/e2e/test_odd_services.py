"""Services that wrongly keep, hide or refuse metadata: the exit code and the summary say so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, write_changes

IDS = [f"chatcmpl-{number:06d}" for number in range(1, 7)]
_REMOVE = {"metadata": {"draft": None}}
_REPLACE = {"metadata": {"grade": "A"}, "mode": "replace"}
_MERGES = ("--semantics", "merge")


@pytest.mark.parametrize(
    ("flags", "settings", "change", "end"),
    [
        (_MERGES, {}, _REMOVE, (3, {"reasons": {"not_persisted": 6}})),
        (_MERGES, {}, _REPLACE, (77, {"halted": "service_merges", "applied": 0, "dead": 0})),
        (_MERGES, {"METASYNC_SEMANTICS": "merge"}, _REPLACE, (0, {"applied": 6, "leftover": 6})),
        (_MERGES, {"METASYNC_SEMANTICS": "replace"}, _REPLACE, (3, {"reasons": {"not_persisted": 6}})),
        (("--fault", "get:hidden_metadata=1"), {}, _REMOVE, (77, {"halted": "metadata_hidden", "dead": 0})),
        (("--fault", "error_200=1", "--error-200-code", "insufficient_quota"), {}, _REMOVE, (77, {"halted": "quota"})),
        (("--fault", "empty_object=1"), {}, _REMOVE, (77, {"halted": "foreign_answers", "dead": 0})),
        (("--fault", "update:no_content=1"), {}, _REMOVE, (0, {"applied": 6})),
        (("--trim-values", "3"), {}, {"metadata": {"note": "longer"}}, (3, {"reasons": {"not_persisted": 6}})),
    ],
    ids=["keeps", "merges?", "merges", "should replace", "hides", "quota", "empty", "204", "trims"],
)
def test_the_exit_code_says_what_became_of_the_changes(
    flags: tuple[str, ...], settings: Mapping[str, str], change: dict[str, Any], end: tuple[int, Any], tmp_path: Path
) -> None:
    exit_code, told = end
    with running_simulator(*flags) as simulator:
        simulator.ask("/seed", {"ids": IDS, "metadata": {"draft": "true"}})
        common = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        times = {"METASYNC_READ_LAG": "0s", "METASYNC_HALT_TIMEOUT": "2s"}
        command = Command(tmp_path, common | times | dict(settings))
        changes = [{"completion_id": completion_id} | change for completion_id in IDS]
        done = command.run("apply", "--json", write_changes(tmp_path / "changes.jsonl", changes))
    assert done.returncode == exit_code, done.stderr[-2000:]
    summary = json.loads(done.stdout)
    assert {name: summary[name] for name in told} == told
