"""The list of mutants fits the code, and the command reports which are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.core import complaints, made_line
from tests.mutants.listed import LIST, Mutant, misplaced, read_list

ROOT = Path(__file__).parents[2]
SHARES = {"worker/queue/sqlite/": 15, "worker/queue/postgres/": 15, "worker/queue/redis/": 15, "worker/engine/": 20}
FAULT = Mutant("house.py", "return 1", "return 2", "one is one", ["test_house.py::test_one"])


def test_each_fault_has_its_place_and_its_tests_are_there() -> None:
    mutants = read_list(LIST)
    assert misplaced(mutants, ROOT) == []
    assert all(mutant.tests for mutant in mutants)


def test_there_are_faults_in_all_that_keeps_promises() -> None:
    files = [mutant.file for mutant in read_list(LIST)]
    for folder, fewest in SHARES.items():
        assert sum(file.startswith(folder) for file in files) >= fewest, folder
    assert any(mutant.find.startswith("PRAGMA") for mutant in read_list(LIST))
    assert any(file.startswith("worker/api/") for file in files)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def one():\n    return 3\n", "does not have any more"),
        ("def one():\n    return 1\n    return 1\n", "more than once"),
    ],
)
def test_a_place_that_is_gone_or_not_clear_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"house.py .*{complaint}.*: return 1"):
        FAULT.apply(text)


def test_a_fault_goes_behind_the_text_that_it_is_to_come_after() -> None:
    mutant = Mutant("x.sql", "lease = 1", "true", "a", [], after="-- name: two")
    assert mutant.apply("-- name: one\nlease = 1\n-- name: two\nlease = 1\n") == (
        "-- name: one\nlease = 1\n-- name: two\ntrue\n"
    )


@pytest.mark.parametrize(
    ("test", "code", "said"),
    [
        ("assert one() == 1", 0, "0 complaints"),
        ("assert one()", 1, "SURVIVED"),
        ("assert one() == 3", 1, "without a fault, the tests fail"),
        ("import pytest; pytest.skip('not today')", 1, "they notice nothing"),
    ],
    ids=["noticed", "survives", "fails anyway", "skipped"],
)
def test_the_command_fails_where_no_test_notices(tmp_path: Path, test: str, code: int, said: str) -> None:
    (tmp_path / "house.py").write_text("def one():\n    return 1\n")
    (tmp_path / "test_house.py").write_text(f"from house import one\n\n\ndef test_one():\n    {test}\n")
    (tmp_path / "list.yaml").write_text(
        "- {file: house.py, find: return 1, replace: return 2, promise: one is one, tests: [test_house.py::test_one]}\n"
    )
    words = ["--list", str(tmp_path / "list.yaml"), "--root", str(tmp_path)]
    command = [sys.executable, "-m", "tests.mutants", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr


def test_the_tests_of_the_module_that_has_the_fault_go_first_and_the_others_keep_their_order(tmp_path: Path) -> None:
    for name in ("door", "house", "roof"):
        (tmp_path / f"test_{name}.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    words = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.order"]
    found = {"MUTANT_UNDER_TEST": "worker.town.house.xǁHouseǁwindows__mutmut_9", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | found, capture_output=True, text=True, check=True)
    places = [f"test_{name}.py::test_{number}" for name in ("house", "door", "roof") for number in ("one", "two")]
    assert done.stdout.splitlines()[:6] == places


FOUND = {f"house.x_one__mutmut_{number}": "killed" for number in range(9)}
LEFT = "house.x_one__mutmut_9"


def test_what_the_tester_left_has_to_be_named_with_a_reason_and_a_name_has_to_be_met() -> None:
    found = FOUND | {LEFT: "survived"}
    assert complaints(found, {LEFT: "return 2"}, {"house.x_one": {"return 2": "nobody asks"}}) == []
    [unnamed] = complaints(found, {LEFT: "return 2"}, {})
    assert "no reason is given: return 2" in unnamed
    [unmet] = complaints(FOUND, {}, {"house.x_one": {"return 2": "nobody asks"}})
    assert "not found any more: return 2" in unmet


def test_too_few_killed_mutants_fail_even_if_survivors_are_listed() -> None:
    found = FOUND | {LEFT: "survived", f"{LEFT}0": "no tests"}
    reasons = {"house.x_one": {"return 2": "nobody asks"}}
    [few] = complaints(found, dict.fromkeys((LEFT, f"{LEFT}0"), "return 2"), reasons)
    assert "9 of 11 faults were noticed" in few


def test_the_line_of_a_fault_is_told_without_its_place() -> None:
    shown = "--- a.py\n+++ a.py\n@@ -1 +1 @@\n def one():\n-    return 1\n+    return 2\n"
    assert made_line(shown) == "return 2"
