import json
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.processes import (
    KEY,
    METASYNC,
    Command,
    RunningSimulator,
    running_simulator,
    stopped,
    wait_for_event,
    write_changes,
)
from tests.queue.helpers import bury, change, letters
from worker import open_queue
from worker.changes import MetadataChange
from worker.cli.status import Report, _text
from worker.queue.notes import WORKER

_MOST_THAT_A_PIPE_HOLDS = 65_536
VERBS = (
    "demo",
    "apply",
    "enqueue",
    "run",
    "status",
    "doctor",
    "dead",
    "simulator",
    "migrate",
    "settings",
    "completion",
    "help",
)


@pytest.fixture
def simulator() -> Any:
    with running_simulator("--completions", "20") as running:
        yield running


@pytest.fixture
def working(command: Command, simulator: RunningSimulator) -> Command:
    """The command with a service to talk to, its log as JSON."""
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
    return replace(command, settings=settings)


def _changes(path: Path, *ids: str, **metadata: str) -> str:
    return write_changes(
        path / "changes.jsonl", [{"completion_id": i, "metadata": metadata or {"g": "A"}} for i in ids]
    )


def test_help_names_every_verb(command: Command) -> None:
    shown = command.run("--help").stdout
    assert all(f"\n    {verb}" in shown for verb in VERBS)
    for verb in VERBS:
        assert command.run(verb, "--help").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobnicate",),
        ("enqueue",),
        ("run", "--frobnicate"),
        ("run", "--max-duration", "soon"),
        ("dead",),
        ("dead", "retry"),
        ("dead", "purge", "--all", "--reason", "invalid"),
        ("dead", "list", "--reason", "boredom"),
        ("simulator", "--limit", "none"),
        ("run",),  # without a key
        ("status", "--queue-url", "mysql://host/db"),
        ("status", "--queue-url", "sqlite:///folder"),
        ("status", "--queue-url", "sqlite:///others.db"),
        ("run", "--openai-base-url", "x"),
    ],
)
def test_wrong_usage_and_bad_configuration_end_with_2_and_one_clear_sentence(
    command: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "folder").mkdir()
    _execute(tmp_path / "others.db", "CREATE TABLE diary (entry)")
    _ends_with(2, command, *words)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all/queue.db", "sqlite:///text.db", "sqlite:///newer.db"])
@pytest.mark.parametrize("verb", [("enqueue", "labels.jsonl"), ("migrate",), ("run", "--drain")], ids=" ".join)
def test_a_store_that_a_person_must_fix_ends_with_75_and_one_sentence(
    command: Command, tmp_path: Path, verb: tuple[str, ...], url: str
) -> None:
    (tmp_path / "labels.jsonl").write_text("")
    (tmp_path / "text.db").write_text("dear diary, " * 100)
    assert command.run("migrate", "--queue-url", "sqlite:///newer.db").returncode == 0
    _execute(tmp_path / "newer.db", "PRAGMA user_version = 999")
    _ends_with(75, replace(command, settings={"OPENAI_API_KEY": KEY}), *verb, "--queue-url", url)


@pytest.mark.parametrize("setting", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_apply_stores_nothing_if_no_request_could_carry_a_setting(
    working: Command, tmp_path: Path, setting: str
) -> None:
    command = replace(working, settings={**working.settings, setting: "two words"})
    _ends_with(2, command, "apply", _changes(tmp_path, "chatcmpl-000001"))


def test_a_simulator_on_a_port_that_is_taken_says_so(command: Command, simulator: RunningSimulator) -> None:
    port = str(urlsplit(simulator.base_url).port)
    done = command.run("simulator", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"metasync: cannot listen on 127.0.0.1, port {port}: ")
    assert len(done.stderr.splitlines()) == 1


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()


def _ends_with(code: int, command: Command, *words: str) -> None:
    """See that this says why in one sentence, and leaves all databases as they are."""
    before = {path.name: path.read_bytes() for path in command.folder.glob("*.db")}
    done = command.run(*words)
    assert done.returncode == code
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert {path.name: path.read_bytes() for path in command.folder.glob("*.db")} == before


def test_unknown_settings_end_with_2_and_are_named(command: Command) -> None:
    done = replace(command, settings={"METASYNC_LEESE": "5m"}).run("status")
    assert (done.returncode, "METASYNC_LEESE" in done.stderr) == (2, True)


def test_settings_are_shown_with_their_sources_and_without_secrets(command: Command) -> None:
    command = replace(command, settings={"OPENAI_API_KEY": KEY, "METASYNC_LEASE": "10m"})
    shown = json.loads(command.run("settings", "--json", "--max-concurrency", "9").stdout)
    assert shown["METASYNC_LEASE"] == {"value": "10m", "source": "environment"}
    assert shown["METASYNC_MAX_CONCURRENCY"] == {"value": "9", "source": "flag"}
    assert shown["METASYNC_MODE"]["source"] == "default"
    assert shown["OPENAI_API_KEY"]["value"] == "***"
    assert KEY not in command.run("settings").stdout


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("dead", "list"), ("dead", "purge", "--all")])
def test_a_command_that_only_looks_makes_no_queue(command: Command, words: tuple[str, ...]) -> None:
    done = command.run(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no queue at {command.folder}/metasync.db: METASYNC_QUEUE_URL" in done.stderr
    assert list(command.folder.iterdir()) == []


def test_status_does_not_say_that_no_worker_runs_where_one_may_be_unable_to_write(command: Command) -> None:
    command.run("migrate")
    assert "none is running, or none can write to the store" in command.run("status").stdout


def test_status_of_a_new_queue_is_all_zeros(command: Command) -> None:
    command.run("migrate")
    shown = json.loads(command.run("status", "--json").stdout)
    assert shown == {
        "pending": 0,
        "in_flight": 0,
        "waiting": 0,
        "dead": 0,
        "oldest_pending_seconds": None,
        "recent_per_second": 0.0,
        "approximate": False,
        "workers": {},
        "limit": None,
        "leases": None,
        "paused": None,
        "batches": 0,
    }
    assert "pending" in command.run("status").stdout


async def test_status_says_who_holds_how_much(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        assert command.run("status", "--leases").stdout.endswith("there are no leases\n")
        await queue.put(
            [MetadataChange("c-1", {"a": "1"}), MetadataChange("c-1", {"b": "2"}), MetadataChange("c-2", {})]
        )
        await queue.claim(2, lease_seconds=60, owner="host:1")

    [held] = json.loads(command.run("status", "--leases", "--json").stdout)["leases"]
    assert held == {"owner": "host:1", "completions": 2, "changes": 3, "since": held["since"], "until": held["until"]}
    taken, ends = (datetime.fromisoformat(held[name]) for name in ("since", "until"))
    assert (ends - taken).total_seconds() == pytest.approx(60, abs=0.1)
    shown = command.run("status", "--leases").stdout
    assert shown.splitlines()[-1].split() == ["host:1", "2", "3", held["since"], held["until"]]
    assert json.loads(command.run("status", "--json").stdout)["leases"] is None


def test_a_status_that_is_an_estimate_says_so() -> None:
    status = Report(3_000_000, 10, 20, 5, 60.0, 8.0, approximate=True, workers={}, limit=None)

    assert [line.split()[:3] for line in _text(status).splitlines()[:1]] == [["pending", "about", "3,000,000"]]
    assert "about" not in _text(replace(status, approximate=False))


async def test_status_names_a_worker_of_another_release(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await queue.write_note(WORKER + "host:1", '{"mood":"fine"}')
    assert json.loads(command.run("status", "--json").stdout)["workers"] == {"host:1": None}
    assert "worker host:1: of another release" in command.run("status").stdout


def test_status_says_what_a_running_worker_is_doing(working: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/switches", {"bad_key": True})
    change = {"completion_id": "chatcmpl-000001", "metadata": {"g": "A"}}
    working.run("enqueue", write_changes(working.folder / "changes.jsonl", [change]))
    with stopped(working.start("run")) as process:
        wait_for_event(process, "worker.halted")
        shown: dict[str, Any] = {}
        while not shown or next(iter(shown.values()))["gate"] != "halted":
            shown = json.loads(working.run("status", "--json").stdout)["workers"]
        [cause] = [flow["cause"] for flow in shown.values()]
        assert (cause["reason"], cause["status"], cause["completion_id"]) == ("unauthorized", 401, "chatcmpl-000001")
        assert "Incorrect API key provided" in cause["error"]
        assert "HALTED: unauthorized" in working.run("status").stdout
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert json.loads(working.run("status", "--json").stdout)["workers"] == {}


@pytest.mark.parametrize("flags", [(), ("--http-port", "0"), ("--drain",)])
def test_a_worker_whose_schema_became_another_waits_until_it_is_its_own_again(
    working: Command, simulator: RunningSimulator, flags: tuple[str, ...]
) -> None:
    simulator.ask("/switches", {"bad_key": True})
    change = {"completion_id": "chatcmpl-000001", "metadata": {"g": "A"}}
    working.run("enqueue", write_changes(working.folder / "changes.jsonl", [change]))
    with stopped(working.start("run", "--halt-timeout", "1h", *flags)) as process:
        wait_for_event(process, "worker.halted")
        connection = sqlite3.connect(working.folder / "metasync.db")
        connection.execute("ALTER TABLE target RENAME TO away")  # as a migration of a later release may
        simulator.ask("/switches", {"bad_key": False})
        assert "schema is not what it should be" in wait_for_event(process, "store.unavailable")["error"]
        connection.execute("ALTER TABLE away RENAME TO target")
        connection.close()
        wait_for_event(process, "change.applied")
        if "--drain" not in flags:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in errors


def test_migrate_prints_what_it_would_run(command: Command, tmp_path: Path) -> None:
    sql = command.run("migrate", "--sql").stdout
    assert not (tmp_path / "metasync.db").exists()
    connection = sqlite3.connect(":memory:")
    connection.executescript(sql)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.close()
    assert {"target", "change", "dead_letter"} <= tables
    assert command.run("migrate").returncode == 0


def test_apply_does_it_all_and_says_so_as_json(working: Command, simulator: RunningSimulator, tmp_path: Path) -> None:
    file = _changes(tmp_path, "chatcmpl-000001", "chatcmpl-000001", "chatcmpl-000002")
    done = working.run("apply", "--json", file)
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["applied"], shown["unchanged"], shown["dead"], shown["changes"]) == (3, 0, 0, 3)
    assert (shown["requests"], shown["retries"], shown["throttled"], shown["exit_code"]) == (4, 0, 0, 0)
    assert shown["seconds"] > 0
    assert simulator.ask("/metadata/chatcmpl-000001") == {"g": "A"}
    names = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert names == [
        "queue.opened",
        "worker.started",
        "change.applied",
        "change.applied",
        "worker.stopping",
        "run.summary",
    ]


def test_apply_shows_a_table_of_outcomes(working: Command, tmp_path: Path) -> None:
    done = working.run("apply", _changes(tmp_path, "chatcmpl-000001", "chatcmpl-none"), "--not-found-grace", "0")
    assert done.returncode == 3
    assert "1 not_found" in done.stdout
    assert "applied" in done.stdout


def test_refused_lines_make_apply_end_with_3(working: Command, tmp_path: Path) -> None:
    (tmp_path / "changes.jsonl").write_text("nonsense\n")
    assert working.run("apply", "changes.jsonl").returncode == 3


def test_a_bad_key_ends_with_77_and_keeps_the_queue(
    working: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/switches", {"bad_key": True})
    done = working.run("apply", _changes(tmp_path, "chatcmpl-000001"), "--halt-timeout", "0")
    assert done.returncode == 77
    assert "unauthorized" in done.stdout
    simulator.ask("/switches", {"bad_key": False})
    assert working.run("run", "--drain").returncode == 0
    assert simulator.ask("/metadata/chatcmpl-000001") == {"g": "A"}


def test_a_service_that_is_not_there_ends_with_75(working: Command, tmp_path: Path) -> None:
    files = _changes(tmp_path, *(f"chatcmpl-{number:06d}" for number in range(1, 11)))
    done = working.run("apply", files, "--base-url", "http://127.0.0.1:9/v1", "--halt-timeout", "0")
    assert done.returncode == 75
    assert working.run("run", "--drain").returncode == 0


def test_time_that_is_up_ends_with_75(working: Command, simulator: RunningSimulator, tmp_path: Path) -> None:
    simulator.ask("/options", {"lag_seconds": 60})
    file = _changes(tmp_path, "chatcmpl-none")
    assert working.run("apply", file, "--max-duration", "500ms").returncode == 75


def test_dead_letters_are_listed_shown_retried_and_purged(
    working: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    changes = [
        {"completion_id": f"chatcmpl-late{number}", "metadata": {"g": "A"}, "change_id": f"c{number}"}
        for number in range(4)
    ]
    file = write_changes(tmp_path / "changes.jsonl", changes)
    assert working.run("apply", file, "--not-found-grace", "0").returncode == 3

    listed = json.loads(working.run("dead", "list", "--json").stdout)
    assert [letter["id"] for letter in listed] == sorted(letter["id"] for letter in listed)  # as they died
    letters = {letter["completion_id"]: letter for letter in listed}
    assert len(listed) == len(changes)
    assert letters.keys() == {change["completion_id"] for change in changes}
    first, second = letters["chatcmpl-late0"], letters["chatcmpl-late1"]
    assert (first["change_id"], first["metadata"], first["mode"]) == ("c0", {"g": "A"}, "merge")
    assert (first["reason"], first["status"], first["attempts"]) == ("not_found", 404, 0)
    assert first["error"]
    assert first["died_at"].endswith("Z")
    assert "not_found" in working.run("dead", "list").stdout

    shown = working.run("dead", "show", str(first["id"]))
    assert (shown.returncode, '{"g": "A"}' in shown.stdout) == (0, True)

    simulator.ask("/seed", {"ids": [change["completion_id"] for change in changes]})
    assert working.run("dead", "retry", str(first["id"]), str(second["id"])).stdout == "2 retried, 0 kept\n"
    retried = json.loads(working.run("dead", "retry", "--completion", "chatcmpl-late2", "--json").stdout)
    assert {name: value for name, value in retried.items() if value} == {"retried": 1}
    assert working.run("run", "--drain").returncode == 0
    assert simulator.ask("/metadata/chatcmpl-late2") == {"g": "A"}
    assert simulator.ask("/metadata/chatcmpl-late3") == {}

    assert working.run("dead", "purge", "--reason", "not_found").stdout == "1 purged\n"
    assert working.run("dead", "list", "--json").stdout == "[]\n"


@pytest.mark.parametrize("words", [("list",), ("show",), ("retry",), ("purge",)])
def test_a_letter_that_is_named_and_not_there_ends_every_action_with_3(
    command: Command, words: tuple[str, ...]
) -> None:
    command.run("migrate")
    for more in ((), ("--json",)):
        done = command.run("dead", *words, "999", "7", "999", *more)
        assert done.returncode == 3
        assert done.stderr == "no such dead letter: 999, 7\n"
        done = command.run("dead", *words, "--reason", "invalid", *more)  # there are none
        assert (done.returncode, done.stderr) == (0, "")


async def test_letters_that_are_there_are_seen_to_beside_one_that_is_not(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await bury(queue, change("c-1"), change("c-2"))
        numbers = [str(letter.number) for letter in await letters(queue)]
    assert command.run("dead", "show", *numbers).returncode == 0
    assert command.run("dead", "show", numbers[0], "--completion", "c-2").returncode == 3
    done = command.run("dead", "retry", numbers[0], "999")
    assert (done.returncode, done.stdout, done.stderr) == (3, "1 retried, 0 kept\n", "no such dead letter: 999\n")
    assert command.run("dead", "purge", *numbers).returncode == 3
    assert command.run("dead", "list", "--json").stdout == "[]\n"
    assert command.run("dead", "show", str(2**63 - 1)).returncode == 3


def test_a_closed_pipe_on_standard_output_is_no_error(working: Command, tmp_path: Path) -> None:
    ids = [f"chatcmpl-{number:06}" for number in range(1, 21)]
    one_more = {f"key-{number}": "value" for number in range(16)}  # than a completion may have
    changes = [{"completion_id": each, "metadata": {"g": "A"}, "mode": "merge"} for each in ids]
    changes += [{"completion_id": each, "metadata": one_more, "mode": "merge"} for each in ids for _ in range(50)]
    assert working.run("apply", write_changes(tmp_path / "changes.jsonl", changes)).returncode == 3
    whole = working.run("dead", "list", "--json").stdout
    assert len(json.loads(whole)) == 1_000
    assert len(whole) > 2 * _MOST_THAT_A_PIPE_HOLDS
    script = f"{METASYNC} dead list --json | head -c 100; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=tmp_path, env=working.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("verb", "foreign"),
    [
        ("--help", {"aiohttp", "pydantic", "apsw", "structlog", "tenacity", "tqdm", "asyncio"}),
        ("status", {"aiohttp", "tenacity", "structlog", "worker.simulator", "worker.engine"}),
    ],
)
def test_heavy_imports_wait_until_a_verb_needs_them(command: Command, verb: str, foreign: set[str]) -> None:
    command.run("migrate")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", METASYNC, verb],
        cwd=command.folder,
        env=command.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "worker.cli.main" in imported
    assert not imported & foreign
