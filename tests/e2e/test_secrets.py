"""No key, no conversation and no metadata value appears in any output for people."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Command, running_simulator, write_changes

KEY = "sk-recognisable-key-000111222"
TEXT = "recognisable conversation about oranges"
VALUES = ("recognisable value one", "recognisable value two", "recognisable poison pzq")
SHORT, SHORT_POISON = "zq9", "pzq"  # in no word that is meant to be there


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_private_is_written_anywhere(tmp_path: Path, log_format: str) -> None:
    faults = ("internal_error", "bad_gateway", "cut_off", "malformed", "dropped", "bare_string")
    flags = [word for fault in faults for word in ("--fault", f"{fault}=0.05")]
    with running_simulator("--text", TEXT, "--reject", SHORT_POISON, "--seed", "3", *flags) as simulator:
        simulator.ask("/seed", {"count": 60})
        settings = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_LOG_FORMAT": log_format,
            "METASYNC_LOG_LEVEL": "debug",
            "METASYNC_NOT_FOUND_GRACE": "1s",
            "METASYNC_HALT_TIMEOUT": "1s",
            "METASYNC_MAX_ATTEMPTS": "3",
        }
        command = Command(tmp_path, settings)
        outputs = [
            command.run("settings"),
            command.run("settings", "--json"),
            command.run("enqueue", write_changes(tmp_path / "bad.jsonl", _bad_changes())),
            command.run("apply", "--halt-timeout", "10s", write_changes(tmp_path / "good.jsonl", _changes())),
            command.run("dead", "list"),
            command.run("dead", "list", "--reason", "rejected"),
        ]
        errors = _errors_in(tmp_path / "metasync.db")
        outputs.append(command.run("dead", "retry", "--all"))
        simulator.ask("/switches", {"bad_key": True})
        outputs.append(command.run("run", "--drain"))
        assert outputs[-1].returncode == 77
        outputs += [command.run("status"), command.run("status", "--json")]
        other_key = Command(tmp_path, settings | {"OPENAI_BASE_URL": "http://192.0.2.1/v1"})
        outputs.append(other_key.run("run", "--drain"))
        assert outputs[-1].returncode == 2
    written = "\n".join(output.stdout + output.stderr for output in outputs)
    assert "rejected" in written
    assert "chatcmpl-000001" in written
    _assert_private(written)
    _assert_private(json.dumps(errors))


def test_values_are_logged_when_they_are_asked_for(command: Command, tmp_path: Path) -> None:
    command = replace(command, settings={**command.settings, "METASYNC_LOG_VALUES": "true"})
    change = {"completion_id": "chatcmpl-none", "metadata": {"note": VALUES[0]}, "mode": "replace"}
    done = command.run("apply", write_changes(tmp_path / "changes.jsonl", [change]), "--not-found-grace", "0")
    assert VALUES[0] in done.stderr


def _changes() -> list[dict[str, Any]]:
    return [
        {
            "completion_id": f"chatcmpl-{number:06d}",
            "metadata": {"note": VALUES[number % 3], "short": SHORT_POISON if number % 8 == 0 else SHORT},
            "mode": ("merge", "replace")[number % 2],
        }
        for number in range(1, 65)
    ]


def _bad_changes() -> list[dict[str, Any]]:
    value = VALUES[0]
    return [
        {"completion_id": "chatcmpl-1", "metadata": {"note": value * 100}},
        {"completion_id": "chatcmpl-1", "metadata": {"note": [value]}},
        {"completion_id": "chatcmpl-1", "metadata": value},
        {"completion_id": "chatcmpl-1", "metadata": {"note": value + "\0"}},
        {"completion_id": "chatcmpl-1", "metadata": {f"k{n}": value for n in range(17)}},
    ]


def _planted() -> set[str]:
    """All that must stand nowhere: the key, the conversation, each value of each change, what they begin with."""
    values = {value for change in (*_changes(), *_bad_changes()) for value in _texts(change["metadata"])}
    assert values >= {*VALUES, SHORT, SHORT_POISON}
    return {KEY, TEXT, "oranges", "recognisable", *values}


def _texts(value: Any) -> Iterator[str]:
    """The strings in a value of JSON, but for its keys: those are no secret."""
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)


def _assert_private(text: str) -> None:
    for secret in sorted(_planted(), key=len):
        at = text.find(secret)
        assert at < 0, text[max(0, at - 300) : at + 100]


def _errors_in(database: Path) -> list[Any]:
    """What the database holds about errors; the changes themselves hold their values, of course."""
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT trials FROM change").fetchall()
    rows += connection.execute("SELECT error, request_id FROM dead_letter").fetchall()
    connection.close()
    assert any(row[0] for row in rows)
    return rows
