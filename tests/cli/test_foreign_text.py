"""Foreign text reaches a terminal as text: it cannot clear the screen, change direction or hide."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from config import logs, sink
from tests.cli.test_words import _halted
from tests.e2e.processes import Command
from tests.queue.helpers import bury
from worker import MetadataChange, open_queue
from worker.cli.output import say, say_json, table, tell
from worker.cli.progress import progress_line
from worker.cli.words import flow_words
from worker.flow import Cause
from worker.queue.notes import WORKER
from worker.terminal import printable, printable_json, printable_lines, shown

# What clears a screen and sets a title (C0), the same in one character (C1), what turns text round (bidi), what takes
# no room, what separates lines without being a line break of ours, and letters that look like nothing.
NASTY = "\x1b[2J\x1b]0;owned\x07\r\x08\x7f\x9b31m\x85\u202e\u2066\u200b\u200d\ufeff\u2028\u3164\ufe0f\U000e0041"
_NO_CONTROLS = NASTY.replace("\x08", "")


def _is_harmless(text: str) -> bool:
    return all(line == printable(line) and line.isprintable() for line in text.splitlines() if line) and not (
        set(text) & (set(NASTY) - set("[2J]0;owned31m"))
    )


def test_every_character_that_cannot_be_seen_is_an_escape() -> None:
    assert printable(NASTY).isascii()
    assert printable(NASTY).startswith("\\x1b[2J\\x1b]0;owned\\x07\\r\\x08\\x7f\\x9b31m\\x85\\u202e")
    assert printable("a\nb\tc\ud800") == "a\\nb\\tc\\ud800"
    assert printable_lines("a\nb\x1b") == "a\nb\\x1b"
    assert _is_harmless(shown(NASTY * 9))


@pytest.mark.parametrize("text", ["", "plain", "gr\u00f6\u00dfe \u65e5\u672c \U0001f600 na\u00efve", "\\x1b is text"])
def test_visible_characters_stay_unchanged(text: str) -> None:
    assert printable(text) == text
    assert printable_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_json_keeps_its_meaning() -> None:
    text = json.dumps({NASTY: [NASTY]}, ensure_ascii=False)
    assert _is_harmless(printable_json(text))
    assert json.loads(printable_json(text)) == {NASTY: [NASTY]}


def test_all_that_the_command_says_goes_through_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    say(NASTY)
    tell(NASTY)
    say_json({NASTY: NASTY})
    say(table([("a", NASTY), (f"{NASTY}\n", "b")]))
    say(", ".join(flow_words(replace(_halted(1.0), cause=Cause("outage", NASTY)))))
    say(progress_line([NASTY, NASTY], 400))
    said = capsys.readouterr()
    assert _is_harmless(said.out + said.err)
    assert len(said.out.splitlines()) == 8


@pytest.fixture
def nasty(command: Command) -> Command:
    """A folder whose files have such names, and whose settings such values."""
    (command.folder / ".env").write_text(f'OPENAI_ORG_ID="{_NO_CONTROLS}"\n')
    return command


async def _letters(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await bury(queue, MetadataChange("chatcmpl-1", {"g" + NASTY: NASTY}, change_id=NASTY))
        await queue.write_note(f"{WORKER}{NASTY}", '{"mood":"fine"}')
    connection = sqlite3.connect(command.folder / "metasync.db")
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(dead_letter)")}
    assert {"completion_id", "error", "request_id"} <= columns
    for column in ("error", "request_id"):
        connection.execute(f"UPDATE dead_letter SET {column} = ?", (NASTY,))  # noqa: S608 -- names of our own
    connection.commit()
    connection.close()


async def test_no_command_lets_any_of_it_through(nasty: Command) -> None:
    await _letters(nasty)
    lines: list[Any] = [
        {"completion_id": NASTY, "metadata": {}},
        {"completion_id": "chatcmpl-1", "metadata": {NASTY * 9: "x"}},
        {"completion_id": "chatcmpl-1", "metadata": {NASTY: 1}},
        {"completion_id": "chatcmpl-1", "metadata": {}, "mode": NASTY},
        {"completion_id": "chatcmpl-1", "metadata": {}, NASTY: 1},
        {"completion_id": "chatcmpl-1", "metadata": {}, "change_id": f"{NASTY}\x00"},
    ]
    file = nasty.folder / f"{_NO_CONTROLS}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + f"{NASTY}\n")
    rows = nasty.folder / f"{_NO_CONTROLS}.csv"
    rows.write_text(f"completion_id,{NASTY},{NASTY}\n1,2,3\n")
    for code, words in (
        (0, ("dead", "list")),
        (0, ("dead", "list", "--json")),
        (0, ("dead", "show", "--all")),
        (0, ("dead", "show", "--all", "--json")),
        (0, ("status",)),
        (0, ("status", "--json")),
        (0, ("settings",)),
        (0, ("settings", "--json")),
        (3, ("enqueue", file.name)),
        (2, ("enqueue", "--strict", file.name)),
        (2, ("enqueue", rows.name)),
        (2, ("enqueue", f"{NASTY}.jsonl")),
        (2, ("enqueue", f"{NASTY}.xml")),
        (2, ("enqueue", file.name, "--rejects", f"{NASTY}/x")),
        (2, (NASTY,)),
        (2, ("run", f"--{NASTY}")),
        (2, ("dead", "list", "--reason", NASTY)),
        (2, ("status", "--queue-url", f"sqlite:///{NASTY}/queue.db")),
        (2, ("status", "--queue-url", f"redis://host/?{NASTY}=1")),
        (2, ("status", "--secrets-dir", NASTY)),
    ):
        done = nasty.run(*words)
        assert done.returncode == code, (words, done.stderr)
        assert _is_harmless(done.stdout + done.stderr), words
        assert done.stdout + done.stderr, words
    (letter,) = json.loads(nasty.run("dead", "list", "--json").stdout)
    assert (letter["change_id"], letter["metadata"]) == (NASTY, {"g" + NASTY: NASTY})


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_lets_nothing_through(log_format: Any, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(log_format, "info")
    logger = structlog.get_logger()
    logger.warning("store.unavailable", error=NASTY, keys=(NASTY,), why={NASTY: NASTY}, completion_id=f"a\n{NASTY}")
    try:
        raise ValueError(NASTY)  # noqa: TRY301 -- raised to be logged
    except ValueError:
        logger.exception("change.crashed")
    sink.flush()
    said = capfd.readouterr().err
    assert _is_harmless(said)
    assert "owned" in said
    if log_format == "json":
        assert [json.loads(line).get("error") for line in said.splitlines()] == [NASTY, None]


def test_unencodable_text_ends_no_command(command: Command) -> None:
    Path(command.folder / "metasync.toml").write_text('openai_org_id = "gr\u00f6\u00dfe"\n')
    done = replace(command, settings={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}).run("settings")
    assert done.returncode == 0
    assert "gr\\xf6\\xdfe" in done.stdout


@pytest.mark.parametrize(
    "metadata", ["[" * 3000 + "]" * 3000, '{"g":NaN}', '{"g":1e999}', '{"g":' + "9" * 5000 + "}", "{"]
)
async def test_metadata_that_is_no_json_of_ours_is_told_as_it_stands(command: Command, metadata: str) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await bury(queue, MetadataChange("chatcmpl-1", {"g": "A"}))
    connection = sqlite3.connect(command.folder / "metasync.db")
    connection.execute("UPDATE dead_letter SET metadata = ?", (metadata,))
    connection.commit()
    connection.close()
    [letter] = json.loads(command.run("dead", "show", "1", "--json").stdout)
    assert letter["metadata"] == metadata
    assert command.run("dead", "show", "1").returncode == 0
