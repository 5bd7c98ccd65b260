"""No command prints the password of any URL, valid or not, nor control characters."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from config import logs, sink
from tests.cli.inside import run
from tests.config.test_urls import ODD, PASSWORD
from tests.e2e.processes import KEY, Command, running_simulator, write_changes

NOWHERE = "127.0.0.1:9"
QUEUES = [
    *ODD,
    f"postgresql://me:{PASSWORD}@{NOWHERE}/db",
    f"postgresql://me@{NOWHERE}/db?password={PASSWORD}",
    f"postgresql://me:{PASSWORD}@{NOWHERE}/db?sslmode=verify-full&sslpassword={PASSWORD}",
    f"redis://:{PASSWORD}@{NOWHERE}/0",
    f"redis://:{PASSWORD}@{NOWHERE}/zero",
]
SERVICES = [
    f"https://me:{PASSWORD}@host/v1",
    f"https://host/v1?key={PASSWORD}",
    f"https://host/v1#{PASSWORD}",
    f"https://host:{PASSWORD}/v1",
    f"https://[{PASSWORD}/v1",
    f"https://me:{PASSWORD}\uff20host\uff0fv1",
    f"https://{PASSWORD}\uff03.example.com/v1",
    f"{PASSWORD}",
]
COMMANDS = (
    ("settings",),
    ("settings", "--json"),
    ("status",),
    ("migrate",),
    ("migrate", "--sql"),
    ("dead", "list"),
    ("enqueue", "changes.jsonl"),
    ("apply", "changes.jsonl", "--halt-timeout", "0", "--max-duration", "10ms"),
    ("run", "--drain", "--halt-timeout", "0", "--max-duration", "10ms"),
)


@pytest.fixture(autouse=True)
def folder(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("METASYNC_STORE_TIMEOUT", "300ms")
    monkeypatch.setattr(logs, "_concealed", {})
    write_changes(empty_folder / "changes.jsonl", [{"completion_id": "chatcmpl-1", "metadata": {"g": "A"}}])
    return empty_folder


@pytest.mark.parametrize("url", QUEUES)
def test_no_command_shows_the_password_of_a_queue(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METASYNC_QUEUE_URL", url)
    for words in COMMANDS:
        code = run(words)
        sink.flush()
        shown = capfd.readouterr()
        assert PASSWORD not in shown.out + shown.err, words
        assert "Traceback" not in shown.err, words
        assert code in (0, 2, 75), words
        if words[0] == "settings":
            assert code == 0
            assert "***" in shown.out


@pytest.mark.parametrize("url", SERVICES)
def test_no_command_shows_what_a_base_url_hides(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    for words in COMMANDS if "key=" in url else COMMANDS[:3]:
        code = run(words)
        sink.flush()
        shown = capfd.readouterr()
        assert PASSWORD not in shown.out + shown.err, words
        assert "Traceback" not in shown.err, words
        if "key=" not in url:
            assert code == 2
            assert "OPENAI_BASE_URL, from environment, must" in shown.err


@pytest.mark.parametrize(
    ("name", "url"), [*(("METASYNC_QUEUE_URL", url) for url in QUEUES), *(("OPENAI_BASE_URL", url) for url in SERVICES)]
)
def test_nor_does_the_doctor_who_tells_of_each(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, url)
    if name != "OPENAI_BASE_URL":
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://{NOWHERE}/v1")
    assert run(["doctor"]) == 3
    shown = capfd.readouterr()
    assert PASSWORD not in shown.out + shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("status", "--queue-url", f"mysql://me:{PASSWORD}@host/db"), "--queue-url must start with sqlite:///"),
        (("status", "--queue-url", "postgresql://me@host/db#"), "--queue-url must be postgresql://"),
        (("settings", "--base-url", "https://host/#"), "--base-url must have no fragment"),
        (
            ("run", "--http-port", "0", "--http-host", "0.0.0.0"),  # noqa: S104 -- refused
            "--http-host is 0.0.0.0, which others can reach: set METASYNC_HTTP_TOKEN",
        ),
        (("settings", "--secrets-dir", "nowhere"), "--secrets-dir: nowhere is not a directory"),
    ],
)
def test_an_error_in_a_flags_value_names_the_flag(
    words: tuple[str, ...], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert f"metasync: {named}" in capfd.readouterr().err


def test_an_error_in_a_variables_value_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METASYNC_QUEUE_URL", "mysql://host/db")
    assert run(["status"]) == 2
    assert "metasync: METASYNC_QUEUE_URL must start with sqlite:///" in capfd.readouterr().err


_SECRETS = "secrets that the environment names"
_FOLDERS_SECRETS = "secrets that .env names"


def _put(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, place: str) -> None:
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    with (folder / ".env").open("a") as dotenv:
        if place == "environment":
            monkeypatch.setenv(name, value)
        elif place == "metasync.toml":
            (folder / place).write_text(f'{name.lower()} = "{value}"\n')
        elif place == ".env":
            dotenv.write(f"{name}={value}\n")
        else:
            (secrets / name).write_text(value)
        if place == _FOLDERS_SECRETS:
            dotenv.write("METASYNC_SECRETS_DIR=secrets\n")
        elif place == _SECRETS:
            monkeypatch.setenv("METASYNC_SECRETS_DIR", str(secrets))


@pytest.mark.parametrize(
    ("places", "warning"),
    [
        ((".env", "environment"), "OPENAI_BASE_URL, from .env, has the key from environment sent to"),
        (("metasync.toml", "environment"), "OPENAI_BASE_URL, from metasync.toml, has the key from environment sent to"),
        (
            (_FOLDERS_SECRETS, "environment"),
            "OPENAI_BASE_URL, from secret file in secrets, has the key from environment",
        ),
        ((".env", _SECRETS), "OPENAI_BASE_URL, from .env, has the key from secret file in"),
        ((".env", ".env"), None),
        ((".env", "metasync.toml"), None),
        ((".env", _FOLDERS_SECRETS), None),
        (("environment", ".env"), None),
        (("environment", "environment"), None),
        ((_SECRETS, "environment"), None),
    ],
)
def test_a_key_that_a_file_of_the_folder_sends_elsewhere_is_warned_of(
    folder: Path,
    places: tuple[str, str],
    warning: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    _put(folder, monkeypatch, "OPENAI_BASE_URL", f"https://example.com/v1?token={PASSWORD}", places[0])
    _put(folder, monkeypatch, "OPENAI_API_KEY", KEY, places[1])
    assert run(["settings"]) == 0
    told = capfd.readouterr().err
    assert told.startswith(f"warning: {warning}" if warning else "")
    assert bool(told) == bool(warning)
    assert PASSWORD not in told
    if warning:
        assert told.endswith("sent to https://example.com/v1?token=***\n")


def test_that_warning_is_in_the_log_before_anything_is_sent(command: Command) -> None:
    with running_simulator("--completions", "1") as simulator:
        (command.folder / ".env").write_text(f"OPENAI_BASE_URL={simulator.base_url}\n")
        working = replace(command, settings={"OPENAI_API_KEY": KEY})
        change = {"completion_id": "chatcmpl-000001", "metadata": {"g": "A"}}
        done = working.run("apply", write_changes(command.folder / "c.jsonl", [change]))
    opened, *events = [json.loads(line) for line in done.stderr.splitlines()]
    assert opened["event"] == "queue.opened"
    assert (done.returncode, events[0]["event"], events[0]["level"]) == (0, "settings.key_led_astray", "warning")
    assert simulator.base_url in events[0]["error"]
    assert [event["event"] for event in events].count("settings.key_led_astray") == 1
