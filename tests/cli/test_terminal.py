"""On a terminal: a progress line that fits, the whole log above it, colours only if wanted."""

import json
import os
import pty
import re
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tqdm.utils import disp_len

from tests.cli.tmux import terminal
from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator, stopped, write_changes
from tests.needs import installed
from worker.cli.progress import how_far, progress_line

WIDTHS = (50, 80, 132)
needs_tmux = installed("tmux", "tmux")


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator("--completions", "600") as running:
        yield running


@pytest.fixture
def working(command: Command, simulator: RunningSimulator) -> Command:
    return replace(command, settings={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})


def _changes(command: Command, count: int) -> str:
    changes = [{"completion_id": f"chatcmpl-{number:06}", "metadata": {"g": "A"}} for number in range(1, count + 1)]
    return write_changes(command.folder / "changes.jsonl", changes)


@needs_tmux
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("verb", ["apply", "run"])
def test_a_halt_is_seen_first_in_the_progress_line_and_whole_in_the_log(
    working: Command, simulator: RunningSimulator, columns: int, verb: str
) -> None:
    simulator.ask("/switches", {"bad_key": True})
    words = [verb, _changes(working, 20), "--halt-timeout", "1s"]
    if verb == "run":
        working.run("enqueue", words[1])
        words = ["run", "--drain", "--halt-timeout", "1s"]
    with terminal(working, *words, columns=columns) as pane:
        during = pane.wait_until("^HALTED: unauthorized")
        ended = pane.wait_until_ended()
    bar = next(line for line in during.splitlines() if line.startswith("HALTED"))
    assert len(bar) < columns
    assert "0/20 changes" in bar or columns < 80
    [halted] = [line for line in ended.splitlines() if "worker.halted" in line]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[error", halted)
    for field in ("reason=unauthorized", "Incorrect API key provided", "status=401", "operation="):
        assert field in halted
    assert "HALTED" not in ended  # the progress line is gone, and no part of it stands in the log
    assert ended.splitlines()[-1] == "exit=77"
    if verb == "run":
        assert " exit_code=77 " in ended.splitlines()[-2]


@needs_tmux
def test_the_limit_that_was_found_is_seen_at_80_columns(command: Command) -> None:
    with running_simulator("--completions", "600", "--limit", "600") as simulator:
        working = replace(command, settings={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        with terminal(working, "apply", _changes(working, 600), columns=80) as pane:
            seen = pane.wait_until(r"limit found [\d,]+/min")
    bar = next(line for line in seen.splitlines() if "limit found" in line)
    assert re.match(r"[\d,]+/600 changes", bar)
    assert len(bar) < 80


@needs_tmux
def test_a_drain_says_that_it_waits_for_what_a_dead_worker_holds(working: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/options", {"latency": 60.0})
    working.run("enqueue", _changes(working, 5))
    with stopped(working.start("run", "--lease", "1h")) as dead:
        while not json.loads(working.run("status", "--json").stdout)["in_flight"]:
            pass
        dead.kill()
    with terminal(working, "run", "--drain", columns=80) as pane:
        pane.wait_until(r"^0/5 changes, nothing is due for 5\dm")


@needs_tmux
@pytest.mark.parametrize("columns", WIDTHS)
def test_every_line_of_a_log_that_is_longer_than_the_terminal_is_whole(working: Command, columns: int) -> None:
    with terminal(working, "apply", _changes(working, 20), "--log-level", "info", columns=columns) as pane:
        ended = pane.wait_until_ended()
    lines = [line for line in ended.splitlines() if " [info" in line]
    applied = {found[0] for line in lines if "change.applied" in line and (found := re.findall(r"chatcmpl-\d+", line))}
    assert len(applied) == 20
    assert [line for line in lines if not re.match(r"\d{4}-", line) or line.count("[info") != 1] == []
    assert [line for line in ended.splitlines() if "/20 changes" in line] == []


def _in_a_terminal(command: Command, *words: str, **environment: str) -> str:
    """What the command writes where standard error is a terminal, and of pull standard output; escapes and all."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = replace(command, settings={**command.settings, "TERM": "xterm-256color"} | environment)
    process = command.start(
        *words, stdin=theirs, stdout=theirs if "pull" in words else subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    written = bytearray()
    try:
        while piece := os.read(ours, 65_536):
            written += piece
    except OSError:  # a terminal reports the end of its last writer like this
        pass
    os.close(ours)
    process.wait(60)
    return written.decode()


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({}, {"colours", "moves"}),
        ({"NO_COLOR": "1"}, {"moves"}),
        ({"NO_COLOR": ""}, {"colours", "moves"}),
        ({"TERM": "dumb"}, set[str]()),
    ],
)
def test_colours_and_a_moving_line_are_for_terminals_that_can_and_people_who_want_them(
    working: Command, environment: dict[str, str], what: set[str]
) -> None:
    written = _in_a_terminal(working, "apply", _changes(working, 3), "--log-level", "info", **environment)
    assert "change.applied" in written
    assert ("\x1b[" in written) == ("colours" in what)
    assert ("\r" in written.replace("\r\n", "")) == ("moves" in what)


def test_a_pipe_gets_neither(working: Command) -> None:
    done = working.run("apply", _changes(working, 3), "--log-format", "console", "--log-level", "info")
    assert "change.applied" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


@pytest.mark.parametrize("columns", [1, 2, 20, 50, 80, 132, 250])
@pytest.mark.parametrize("error", ["HTTP 503", "x" * 500, "\uff21" * 300, "\x1b[2J\u202e" * 30])
def test_a_progress_line_fits_any_width(columns: int, error: str) -> None:
    words = [f"HALTED: outage: {error}", "1/2 changes", "limit found 500/min"]
    line = progress_line(words, columns)
    assert disp_len(line) <= columns - 1
    assert line.isprintable()
    if columns >= 50:
        assert line.startswith("HALTED: outage")
    if columns >= 80:
        assert "1/2 changes" in line


def test_how_far_says_what_is_left_where_the_pace_tells() -> None:
    assert how_far(0, None, 1.0) == "0 changes"
    assert how_far(0, 2_000, 1.0) == "0/2,000 changes"
    assert how_far(500, 2_000, 10.0) == "500/2,000 changes, 50/s, 30s left"
    assert how_far(500, 2_000, 10.0, moves=False) == "500/2,000 changes"
    assert how_far(500, None, 10.0) == "500 changes, 50/s"
    assert how_far(2_001, 2_000, 10.0) == "2,001/2,001 changes, 200/s"


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_pulled_onto_a_terminal_cannot_control_it(
    working: Command, simulator: RunningSimulator, form: str
) -> None:
    simulator.ask("/seed", {"completions": {"chatcmpl-odd": {"k": "\x9b31m\u202e\x7f"}}})
    written = _in_a_terminal(working, "pull", "--format", form)
    assert r"\u009b31m\u202e\u007f" in written
    assert "\x9b" not in written
