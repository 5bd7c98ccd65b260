"""`metasync diff` as a process: before, after, of the queue, and as JSON."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, METASYNC, Command, RunningSimulator, running_simulator, write_changes
from worker.cli.diff import text_of
from worker.sync.comparing import Before, Difference

FIRST, SECOND, GONE = "chatcmpl-000001", "chatcmpl-000002", "chatcmpl-none"
SECRETS = ("planted value one", "planted value two", "planted conversation")


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator("--completions", "2", "--text", SECRETS[2]) as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, simulator: RunningSimulator) -> Command:
    settings = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": simulator.base_url,
        "METASYNC_LOG_FORMAT": "json",
        "METASYNC_READ_LAG": "0",
    }
    return Command(tmp_path, settings)


def _labels(folder: Path) -> str:
    changes = [
        {"completion_id": FIRST, "metadata": {"grade": "A", "draft": None}},
        {"completion_id": SECOND, "metadata": {"topic": "refunds"}, "mode": "replace"},
    ]
    return write_changes(folder / "labels.jsonl", changes)


def test_changes_with_one_change_id_are_compared_as_apply_takes_them(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"ids": [FIRST], "metadata": {"grade": "B"}})
    changes = [
        {"completion_id": FIRST, "metadata": {"grade": "A"}, "change_id": "one"},
        {"completion_id": FIRST, "metadata": {"grade": "B"}, "change_id": "one"},
        {"completion_id": SECOND, "metadata": {"grade": "A"}, "change_id": "two"},
        {"completion_id": SECOND, "metadata": {"grade": "B"}},
        {"completion_id": SECOND, "metadata": {"grade": "A"}, "change_id": "two"},
    ]
    labels = write_changes(tmp_path / "labels.jsonl", changes)
    before = command.run("diff", labels)
    assert before.returncode == 3
    assert "~ grade=B → A" in before.stdout  # and not in sync
    assert "labels.jsonl:2: change_id 'one' came before, with other content" in before.stderr
    assert command.run("apply", labels).returncode == 3
    after = json.loads(command.run("diff", "--summary", "--json", labels).stdout)
    assert (after["in_sync"], after["differs"], after["refused_lines"], after["exit_code"]) == (2, 0, 1, 3)


def test_before_it_says_what_would_change_and_after_that_all_is_in_sync(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"ids": [FIRST], "metadata": {"draft": "yes"}})
    simulator.ask("/seed", {"ids": [SECOND], "metadata": {"topic": "billing"}})
    before = command.run("diff", _labels(tmp_path))
    assert (before.returncode, before.stderr) == (3, "")
    assert before.stdout == (
        f"{FIRST}\n  + grade=A\n  - draft\n{SECOND}\n  ~ topic=billing → refunds\n"
        "2 to change, 0 in sync, 0 not found, 0 refused (too many keys)\n"
    )
    assert command.run("diff", "labels.jsonl", "--keys-only").stdout.startswith(
        f"{FIRST}\n  + grade\n  - draft\n{SECOND}\n  ~ topic\n"
    )
    command.run("enqueue", "labels.jsonl")
    assert command.run("diff", "--pending").stdout == before.stdout
    assert command.run("run", "--drain").returncode == 0
    after = command.run("diff", "labels.jsonl")
    assert (after.returncode, after.stdout) == (0, "0 to change, 2 in sync, 0 not found, 0 refused (too many keys)\n")
    lines = [json.loads(line) for line in command.run("diff", "labels.jsonl", "--json").stdout.splitlines()]
    assert [(line["completion_id"], line["state"]) for line in lines] == [(FIRST, "in_sync"), (SECOND, "in_sync")]


def test_what_is_missing_and_lines_that_are_no_changes_are_counted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text(f'{{"completion_id": "{GONE}", "metadata": {{"a": "1"}}}}\nnonsense\n')
    done = command.run("diff", "some.jsonl")
    assert done.returncode == 3
    assert f"{GONE}: not found\n0 to change, 0 in sync, 1 not found" in done.stdout
    assert "some.jsonl:2: not JSON" in done.stderr
    summary = json.loads(command.run("diff", "some.jsonl", "--json", "--summary").stdout)
    assert (summary["not_found"], summary["refused_lines"], summary["exit_code"]) == (1, 1, 3)


def test_what_cannot_be_used_is_a_usage_error(command: Command) -> None:
    for words in (("none.jsonl",), (), ("--pending", "x.jsonl"), ("--pending", "--queue-url", "sqlite:///none.db")):
        done = command.run("diff", *words)
        assert done.returncode == 2, done.stderr
        assert "nothing was stored" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["diff many.jsonl", "diff --json many.jsonl", "doctor"])
def test_a_closed_pipe_does_not_make_its_verdict_a_good_one(command: Command, words: str) -> None:
    missing = [{"completion_id": f"c-{n:0240d}", "metadata": {}} for n in range(2_000)]  # more than a pipe holds
    write_changes(command.folder / "many.jsonl", missing)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{METASYNC} {words} | true"],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "metasync: standard output was closed before all was written\n")


def test_a_halt_ends_it_with_77(command: Command, simulator: RunningSimulator, tmp_path: Path) -> None:
    simulator.ask("/switches", {"bad_key": True})
    done = command.run("diff", _labels(tmp_path), "--halt-timeout", "200ms", "--json", "--summary")
    assert (done.returncode, json.loads(done.stdout)["halted"]) == (77, "unauthorized")


def test_no_value_and_no_word_of_a_conversation_is_in_any_log(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"ids": [FIRST], "metadata": {"note": SECRETS[0]}})
    changes = [{"completion_id": FIRST, "metadata": {"note": SECRETS[1]}}]
    write_changes(tmp_path / "x.jsonl", [*changes, {"completion_id": GONE, "metadata": {"note": SECRETS[1]}}])
    loud = replace(command, settings={**command.settings, "METASYNC_LOG_LEVEL": "debug"})
    runs = [
        loud.run("pull", "-o", "all.jsonl", "--with", "messages"),
        loud.run("pull", "--of", "x.jsonl"),
        loud.run("diff", "x.jsonl"),
        loud.run("diff", "x.jsonl", "--keys-only"),
        loud.run("diff", "x.jsonl", "--json", "--keys-only"),
    ]
    simulator.ask("/switches", {"outage": "overloaded"})
    runs.append(loud.run("pull", "--metadata", f"note={SECRETS[0]}", "--halt-timeout", "200ms"))
    runs.append(loud.run("diff", "x.jsonl", "--halt-timeout", "200ms"))
    for done in runs:
        assert not any(secret in done.stderr for secret in SECRETS), done.stderr
    assert SECRETS[2] in (tmp_path / "all.jsonl").read_text()
    assert SECRETS[1] in runs[2].stdout
    assert not any(secret in done.stdout for secret in SECRETS for done in runs[3:])


def test_what_could_move_the_cursor_is_escaped_and_colours_are_our_own() -> None:
    difference = Difference(
        FIRST,
        "differs",
        set={"a\x1b[2J": "b\nc"},
        changed={"k": Before("\u202eold", "new\x07")},
        removed={"r\r": "gone"},
    )
    assert list(text_of(difference, keys_only=False, colors=False)) == [
        FIRST,
        "  + a\\x1b[2J=b\\nc",
        "  ~ k=\\u202eold → new\\x07",
        "  - r\\r",
    ]
    colored = list(text_of(difference, keys_only=True, colors=True))
    assert colored[1] == "  \x1b[32m+ a\\x1b[2J\x1b[0m"
    assert "\x1b" not in "".join(text_of(difference, keys_only=True, colors=False))
