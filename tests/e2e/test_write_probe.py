"""`metasync doctor --write-probe` finds out how updates behave, and always restores the metadata."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.processes import Command, RunningSimulator, running_simulator, stopped

ID = "chatcmpl-1"
BEFORE = {"grade": "A", "reviewed": "yes", "topic": "billing"}
FULL = {f"{number:02d}{'k' * 62}": "\U0001f600" * 512 for number in range(16)}
KEPT = f"metasync-probe-{ID}.jsonl"


@pytest.fixture
def command(command: Command) -> Command:
    return replace(command, settings={**command.settings, "METASYNC_READ_LAG": "2s"})


@pytest.fixture
def simulator() -> Any:
    with running_simulator("--history", "1000") as running:
        running.ask("/seed", {"completions": {ID: BEFORE}})
        yield running


def probe(command: Command, *words: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the findings, and what was told on standard error."""
    done = command.run("doctor", "--completion", ID, "--write-probe", "--json", *words)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["probe"], done.stderr


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def updates(simulator: RunningSimulator) -> int:
    """How many updates have been answered with success."""
    requests = simulator.ask("/counters")["counters"]["requests"]
    return int(requests.get("update", {}).get("200", 0))


def assert_back(command: Command, simulator: RunningSimulator, before: dict[str, str] = BEFORE) -> None:
    assert simulator.ask(f"/metadata/{ID}") == before
    assert not (command.folder / KEPT).exists()


@pytest.mark.parametrize("stale", [0.0, 0.7])
@pytest.mark.parametrize("before", [BEFORE, FULL], ids=["small", "at every limit"])
@pytest.mark.parametrize("semantics", ["merge", "replace"])
def test_it_finds_out_what_updates_do_and_adds_no_key_on_the_way(
    semantics: str, before: dict[str, str], stale: float, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"completions": {ID: before}})
    simulator.ask("/options", {"semantics": semantics, "stale_reads_seconds": stale})
    code, found, told = probe(command, "--semantics", semantics)
    assert (code, found["semantics"], found["restored"], found["error"]) == (0, semantics, True, None)
    clears = "clears" if semantics == "replace" else "keeps"
    assert (found["null_value"], found["empty_metadata"], found["null_metadata"]) == ("rejected", clears, clears)
    assert found["answer"] == "new"
    assert found["read_lag_seconds"] >= stale / 2
    assert_back(command, simulator, before)
    history = simulator.ask(f"/history/{ID}")
    assert all(set(metadata) <= set(before) for metadata in history)
    assert not any(value in told for value in before.values() if len(value) > 10)


def test_a_setting_that_says_something_else_is_told(command: Command, simulator: RunningSimulator) -> None:
    done = command.run("doctor", "--completion", ID, "--write-probe", "--semantics", "merge")
    assert done.returncode == 0
    assert "set METASYNC_SEMANTICS=replace; it is merge" in done.stdout
    assert "the original metadata is restored" in done.stdout
    assert_back(command, simulator)


@pytest.mark.parametrize(
    ("number", "after_updates", "code"),
    [(signal.SIGINT, 1, 130), (signal.SIGTERM, 2, 75), (signal.SIGTERM, 4, 75), (signal.SIGHUP, 5, 75)],
)
def test_a_signal_ends_it_with_what_was_there_back_in_place(
    number: signal.Signals, after_updates: int, code: int, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/options", {"update_latency": 0.3, "stale_reads_seconds": 0.5})
    with stopped(command.start("doctor", "--completion", ID, "--write-probe", "--json")) as process:
        until(lambda: updates(simulator) >= after_updates)
        process.send_signal(number)
        output, told = process.communicate(timeout=90)
    assert process.returncode == code, told
    assert json.loads(output)["probe"]["error"] == f"interrupted by {number.name}"
    assert_back(command, simulator)


def test_what_was_there_survives_even_a_kill_in_a_file_that_puts_it_back(
    command: Command, simulator: RunningSimulator
) -> None:
    with stopped(command.start("doctor", "--completion", ID, "--write-probe")) as process:
        until(lambda: updates(simulator) >= 1)
        process.kill()
        process.wait()
    kept = command.folder / KEPT
    assert kept.stat().st_mode & 0o777 == 0o600
    assert simulator.ask(f"/metadata/{ID}") != BEFORE
    code, found, _ = probe(command)  # another probe would take what is there for what was there
    assert (code, found["restored"]) == (3, True)
    assert KEPT in found["error"]
    assert command.run("apply", KEPT).returncode == 0
    assert simulator.ask(f"/metadata/{ID}") == BEFORE


def test_an_outage_in_the_middle_is_waited_for(command: Command, simulator: RunningSimulator) -> None:
    with stopped(command.start("doctor", "--completion", ID, "--write-probe", "--json")) as process:
        until(lambda: updates(simulator) >= 1)
        before = simulator.requests()
        simulator.ask("/switches", {"outage": "dropped"})
        until(lambda: simulator.requests() >= before + 3)
        simulator.ask("/switches", {"outage": None})
        output, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert json.loads(output)["probe"]["restored"] is True
    assert_back(command, simulator)


@pytest.mark.timeout(300)
def test_updates_of_which_the_answer_is_late_or_lost_are_undone_too(
    command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/options", {"late_seconds": 7.0, "update_latency": 0.05})
    command = replace(command, settings={**command.settings, "METASYNC_REQUEST_TIMEOUT": "5s"})
    with stopped(command.start("doctor", "--completion", ID, "--write-probe", "--json")) as process:
        until(lambda: updates(simulator) >= 1)
        faults = [{"then": kind, "share": 0.2, "on": "update"} for kind in ("late", "cut_off")]
        simulator.ask("/options", {"faults": faults})
        output, told = process.communicate(timeout=280)
    assert json.loads(output)["probe"]["restored"] is True, told
    assert_back(command, simulator)


def test_where_it_cannot_be_put_back_the_person_is_told_what_was_there(
    command: Command, simulator: RunningSimulator
) -> None:
    with stopped(command.start("doctor", "--completion", ID, "--write-probe", "--json")) as process:
        until(lambda: updates(simulator) >= 1)
        simulator.ask("/switches", {"bad_key": True})
        output, told = process.communicate(timeout=120)
    assert process.returncode == 77
    found = json.loads(output)["probe"]
    assert (found["restored"], found["kept_in"]) == (False, KEPT)
    assert "(your values)" in told.decode()
    (line,) = (line for line in told.decode().splitlines() if line.startswith('{"completion_id"'))
    assert json.loads(line)["metadata"] == BEFORE
    simulator.ask("/switches", {"bad_key": False})
    assert command.run("apply", KEPT).returncode == 0
    assert simulator.ask(f"/metadata/{ID}") == BEFORE


def test_a_key_that_may_only_read_writes_nothing_and_leaves_nothing(
    command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/options", {"faults": [{"then": "forbidden", "share": 1.0, "on": "update"}]})
    code, found, told = probe(command)
    assert (code, found["restored"], found["semantics"]) == (77, True, None)
    assert "403" in found["error"]
    assert "your values" not in told
    assert_back(command, simulator)


def test_reads_that_are_still_old_are_not_taken_for_what_is_there(
    command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/options", {"stale_reads_seconds": 4.0})
    changes = command.folder / "changes.jsonl"
    changes.write_text(json.dumps({"completion_id": ID, "metadata": {"grade": "B", "new": "1"}, "mode": "replace"}))
    command = replace(command, settings={**command.settings, "METASYNC_READ_LAG": "6s"})
    assert command.run("apply", "changes.jsonl").returncode == 0
    code, found, _ = probe(command)
    assert (code, found["restored"]) == (3, True)
    assert "its metadata changes" in found["error"]
    assert simulator.ask(f"/metadata/{ID}") == {"grade": "B", "new": "1"}
    assert updates(simulator) == 1


@pytest.mark.parametrize("held", [{}, {"only": "one"}])
def test_a_completion_that_does_not_do_is_left_alone(
    held: dict[str, str], command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"completions": {ID: held}})
    code, found, _ = probe(command)
    assert (code, found["restored"]) == (3, True)
    assert "2 to 16" in found["error"]
    assert updates(simulator) == 0
    assert_back(command, simulator, held)


def test_replicas_that_lag_each_in_its_own_way_do_not_lead_it_astray(command: Command) -> None:
    with running_simulator("--stale-reads", "0s-1s", "--semantics", "merge", "--seed", "5") as simulator:
        simulator.ask("/seed", {"completions": {ID: BEFORE}})
        command = replace(command, settings={**command.settings, "OPENAI_BASE_URL": simulator.base_url})
        code, found, _ = probe(command)
        assert (code, found["semantics"], found["restored"]) == (0, "merge", True)
        assert_back(command, simulator)
