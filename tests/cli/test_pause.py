"""`metasync pause` and `resume`, other commands during a pause, and dead letters by age."""

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, write_changes
from tests.queue.helpers import bury, change
from worker import open_queue
from worker.flow import Flow
from worker.queue import resume
from worker.queue.notes import LIMIT, PAUSE, WORKER

EVIL = "rm\n\x1b[2Jdone\u202e\x07"


def _queue(command: Command) -> str:
    assert command.run("migrate").returncode == 0
    return f"sqlite:///{command.folder}/metasync.db"


def test_a_pause_says_who_has_paused_and_a_resume_whose_pause_it_was(command: Command) -> None:
    _queue(command)
    assert command.run("resume").stdout == "the queue is not paused\n"
    done = command.run("pause", "--reason", "deploy")
    assert (done.returncode, done.stdout.startswith("paused: ")) == (0, True)
    shown = command.run("status").stdout
    assert shown.startswith("PAUSED: paused by ")
    assert shown.splitlines()[0].endswith(": deploy")
    paused = json.loads(command.run("status", "--json").stdout)["paused"]
    assert "@" in paused["by"]
    assert (paused["reason"], paused["since"][-1]) == ("deploy", "Z")
    again = command.run("pause")
    assert again.returncode == 0
    assert f"it was paused by {paused['by']}: deploy" in again.stdout
    assert json.loads(command.run("status", "--json").stdout)["paused"]["reason"] is None
    done = command.run("resume")
    assert (done.returncode, done.stdout.startswith("resumed; it was paused by ")) == (0, True)
    assert json.loads(command.run("status", "--json").stdout)["paused"] is None
    assert "PAUSED" not in command.run("status").stdout


@pytest.mark.parametrize("words", [("pause",), ("resume",)])
def test_there_has_to_be_a_queue(command: Command, words: tuple[str, ...]) -> None:
    done = command.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (command.folder / "metasync.db").exists()


def test_a_reason_that_is_too_long_is_refused(command: Command) -> None:
    _queue(command)
    done = command.run("pause", "--reason", "x" * 501)
    assert (done.returncode, "500 characters" in done.stderr) == (2, True)
    assert command.run("resume").stdout == "the queue is not paused\n"


@pytest.mark.parametrize(
    "note",
    [
        json.dumps({"by": f"ana{EVIL}@host", "reason": EVIL}),
        "",
        "{",
        '{"by":[1]}',
        '{"who":"ana"}',
        '{"by":"ana","age_seconds":1e300}',
        '{"by":"ana","age_seconds":1e11}',
        '{"by":' * 100_000,
    ],
)
async def test_foreign_words_move_no_cursor_and_end_no_command(command: Command, tmp_path: Path, note: str) -> None:
    url = _queue(command)
    async with open_queue(url) as queue:
        await queue.write_note(PAUSE, note)
        await queue.put([change("c-1")])
    lines = len(command.run("status").stdout.splitlines())
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "METASYNC_LOG_FORMAT": "console"}
    working = Command(tmp_path, settings)
    ran = [
        command.run("status"),
        command.run("status", "--json"),
        working.run("run", "--drain"),
        working.run("apply", write_changes(tmp_path / "changes.jsonl", [])),
        command.run("pause"),
    ]
    assert [done.returncode for done in ran] == [0, 0, 75, 75, 0]
    async with open_queue(url) as queue:
        await queue.write_note(PAUSE, note)
    ran.append(command.run("resume"))
    async with open_queue(url) as queue:
        assert await resume(queue) is None
    assert lines == len(command.run("status").stdout.splitlines()) + 1
    assert [len(done.stdout.splitlines()) for done in ran[-2:]] == [1, 1]
    for done in ran:
        for text in (done.stdout, done.stderr):
            assert "Traceback" not in text
            assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_a_reason_that_is_no_text_pauses_all_the_same(command: Command) -> None:
    _queue(command)
    done = command.run("pause", "--reason", b"St\xf6rung".decode(errors="surrogateescape"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(command.run("status", "--json").stdout)["paused"]["reason"] == "St?rung"


async def test_a_workers_note_cannot_forge_lines_or_hide_others(command: Command) -> None:
    url = _queue(command)
    state = asdict(Flow(max_concurrency=1, patience_seconds=5.0, clock=float).snapshot())
    state |= {"gate": "halted", "cause": {"reason": f"outage{EVIL}"}}
    async with open_queue(url) as queue:
        await queue.write_note(f"{WORKER}ana", json.dumps(state))
        await queue.write_note(f"{WORKER}bob", '{"x":' * 100_000)
        await queue.write_note(LIMIT, '{"x":' * 100_000)
    done = command.run("status")
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()[-2:]] == ["worker ana", "worker bob"]


def test_a_drain_ends_with_75_and_says_by_whom_and_why(tmp_path: Path) -> None:
    with running_simulator("--completions", "20") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        working = Command(tmp_path, settings)
        _queue(working)
        assert working.run("pause", "--reason", "deploy").returncode == 0
        by = json.loads(working.run("status", "--json").stdout)["paused"]["by"]

        nothing = working.run("run", "--drain")
        assert (nothing.returncode, _summary(nothing.stderr)["ending"]) == (0, "drained")

        file = write_changes(tmp_path / "c.jsonl", [{"completion_id": "chatcmpl-000001", "metadata": {"a": "b"}}])
        applied = working.run("apply", file)
        assert applied.returncode == 75
        assert f"not finished (paused by {by} since " in applied.stdout
        assert ": deploy); the rest stays in the queue: `metasync resume`, then" in applied.stdout
        report = json.loads(working.run("apply", file, "--json").stdout)
        assert (report["exit_code"], report["ending"], report["paused"]["by"]) == (75, "paused", by)

        drained = working.run("run", "--drain")
        summary = _summary(drained.stderr)
        assert (drained.returncode, summary["ending"], summary["exit_code"]) == (75, "paused", 75)
        assert (summary["paused"]["by"], summary["paused"]["reason"]) == (by, "deploy")
        timed = working.run("run", "--max-duration", "2s")
        assert (timed.returncode, _summary(timed.stderr)["ending"]) == (75, "paused")
        assert simulator.requests() == 0

        assert working.run("resume").returncode == 0
        assert working.run("run", "--drain").returncode == 0
        assert simulator.ask("/metadata/chatcmpl-000001") == {"a": "b"}


def _summary(log: str) -> dict[str, Any]:
    events: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    return next(event for event in events if event["event"] == "run.summary")


async def _letters_of_three_ages(command: Command) -> None:
    """c-0 is forty days old, c-1 two, c-2 has just died."""
    async with open_queue(_queue(command)) as queue:
        for number in range(3):
            await bury(queue, change(f"c-{number}"))
    with closing(sqlite3.connect(command.folder / "metasync.db")) as connection, connection:
        for number, days in ((0, 40), (1, 2)):
            connection.execute(
                "UPDATE dead_letter SET died_at = died_at - 86400.0 * ? WHERE completion_id = ?", (days, f"c-{number}")
            )


def _listed(command: Command, *words: str) -> list[str]:
    done = command.run("dead", "list", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [letter["completion_id"] for letter in json.loads(done.stdout)]


async def test_letters_are_named_by_their_age(command: Command) -> None:
    await _letters_of_three_ages(command)
    assert _listed(command, "--older-than", "30d") == ["c-0"]
    assert _listed(command, "--since", "3d") == ["c-1", "c-2"]
    assert _listed(command, "--since", "3d", "--older-than", "1d") == ["c-1"]
    assert _listed(command, "--since", "2020-01-01") == ["c-0", "c-1", "c-2"]
    assert _listed(command, "--since", "20200101") == ["c-0", "c-1", "c-2"]
    assert _listed(command, "--since", "0001-01-01T00:00+23:59") == ["c-0", "c-1", "c-2"]
    assert command.run("dead", "retry", "--since", "1h").stdout == "1 retried, 0 kept\n"
    assert command.run("dead", "purge", "--older-than", "30d", "--reason", "not_found").stdout == "0 purged\n"
    assert command.run("dead", "purge", "--older-than", "30d").stdout == "1 purged\n"
    assert _listed(command) == ["c-1"]


@pytest.mark.parametrize(
    "words",
    [
        ("purge", "--older-than", "0d"),
        ("purge", "--older-than", "0"),
        ("purge", "--older-than", "0.0s"),
        ("purge", "--older-than", "-1d"),
        ("purge", "--older-than", "30"),
        ("purge", "--older-than", "soon"),
        ("purge", "--older-than", "1d", "--all"),
        ("purge", "--since", "1d"),
        ("retry", "--since", "0"),
        ("retry", "--since", "2999-01-01"),
        ("retry", "--since", "2026"),
        ("retry", "--since", "0001-01-01"),
        ("retry", "--since", "yesterday"),
        ("purge",),
    ],
)
async def test_an_age_is_no_way_around_saying_all(command: Command, words: tuple[str, ...]) -> None:
    await _letters_of_three_ages(command)
    assert command.run("dead", *words).returncode == 2
    assert len(_listed(command)) == 3


async def test_a_drain_that_finds_nothing_deletes_what_is_too_old(command: Command, tmp_path: Path) -> None:
    await _letters_of_three_ages(command)
    kept = Command(tmp_path, {"OPENAI_API_KEY": KEY, "METASYNC_LOG_FORMAT": "json"})
    assert kept.run("run", "--drain").returncode == 0
    assert len(_listed(command)) == 3
    done = kept.run("run", "--drain", "--dead-retention", "30d")
    assert done.returncode == 0
    assert '"event":"dead.expired"' in done.stderr
    assert _listed(command) == ["c-1", "c-2"]
