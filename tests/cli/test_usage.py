"""Help for new users: wrong words are named, with what was probably meant."""

from pathlib import Path

import pytest

from config.settings import Settings, flag, is_secret, load, metavar
from tests.cli.inside import run
from worker.cli.verbs import VERBS, commands_of

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_without_arguments_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"\n    {verb} " in shown.err for verb in VERBS)
    assert "error" not in shown.err.partition("exit codes")[0]


def test_dead_without_an_action_lists_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dead"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"\n    {action} " in shown.err for action in ("list", "show", "retry", "purge"))


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["help"], ["--help"]),
        (["help", "run"], ["run", "--help"]),
        (["help", "dead"], ["dead", "--help"]),
        (["help", "dead", "purge"], ["dead", "purge", "--help"]),
        (["help", "help"], ["help", "--help"]),
        (["-V"], ["--version"]),
        (["-h"], ["--help"]),
    ],
)
def test_help_and_the_version_are_found_however_they_are_asked_for(
    words: list[str], same: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert run(same) == 0
    assert capsys.readouterr().out == shown.out
    assert shown.out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["statsu"], "status"),
        (["help", "enque"], "enqueue"),
        (["dead", "prge"], "purge"),
        (["run", "--drian"], "--drain"),
        (["run", "--max-duratoin=15m"], "--max-duration"),
        (["run", "--max-dur", "15m"], "--max-duration"),
        (["dead", "list", "--complet=x"], "--completion"),
        (["dead", "list", "--reason", "notfound"], "not_found"),
        (["apply", "x", "--log-level", "inof"], "info"),
        (["simulator", "--compltions", "9"], "--completions"),
        (["completion", "bsh"], "bash"),
    ],
)
def test_a_mistyped_word_is_named_with_a_suggestion(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert capsys.readouterr().err.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("words", [["frobnicate"], ["run", "--frobnicate"]])
def test_no_suggestion_is_made_for_an_unrelated_word(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_a_flag_before_its_command_is_said_to_stand_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--drain", "run"]) == 2
    assert "--drain; a command's own flags come after it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "line", "meant"),
    [
        ("environment", "METASYNC_LEESE", "METASYNC_LEASE"),
        (".env", "METASYNC_MAX_CONCURENCY=3\n", "METASYNC_MAX_CONCURRENCY"),
        ("metasync.toml", "max_concurency = 3\n", "max_concurrency"),
    ],
)
def test_a_mistyped_setting_is_named_with_a_suggestion(
    place: str, line: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "environment":
        monkeypatch.setenv(line, "1")
    else:
        Path(place).write_text(line)
    assert run(["settings"]) == 2
    told = capsys.readouterr().err.lower()
    assert place in told
    assert told.endswith(f"did you mean {meant.lower()}?\n")


@pytest.mark.parametrize("word", ["--a", "--al"])
@pytest.mark.parametrize("action", ["purge", "retry", "show"])
def test_all_is_never_abbreviated(action: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dead", action, word]) == 2
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err
    assert not Path("metasync.db").exists()


@pytest.mark.parametrize(
    "command", [command for verb in VERBS for command in commands_of(verb)], ids=lambda one: one.name
)
def test_no_flag_of_any_command_is_abbreviated(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = getattr(command, "name", "")
    assert run([*name.split(), "--hel"]) == 2
    capsys.readouterr()


def test_help_shows_values_as_people_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("run", "apply", "settings"):
        assert run([verb, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "--lease DURATION how long" in shown
        assert "default 5m]" in shown
        assert "--requests-per-minute N most" in shown
        assert "--base-url URL the URL" in shown
        assert "00.0" not in shown
    assert {metavar(name) for name in Settings.model_fields if not is_secret(name)} >= {
        "URL",
        "DURATION",
        "N",
        "PORT",
        "",
    }


@pytest.mark.parametrize("text", ["INFO", "Info", " info ", "WARNING"])
def test_a_choice_is_taken_in_any_case(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASYNC_LOG_LEVEL", text)
    assert load().settings.log_level == text.strip().lower()
    monkeypatch.setenv("METASYNC_MODE", "REPLACE")
    monkeypatch.setenv("METASYNC_LOG_FORMAT", "Json")
    monkeypatch.setenv("METASYNC_SEMANTICS", "Merge")
    monkeypatch.setenv("METASYNC_AUTH", "API-Key")
    settings = load().settings
    assert (settings.mode, settings.log_format, settings.semantics, settings.auth) == (
        "replace",
        "json",
        "merge",
        "api-key",
    )


def test_a_choice_is_taken_in_any_case_of_a_flag_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "--log-level", "INFO", f"{flag('mode')}=Merge"]) == 0
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines() if "_LEVEL" in line] == [["info", "flag"]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "metasync.toml",
            b"mode = 'merge'\nlease =\n",
            "metasync.toml cannot be read: Invalid value (at line 2, column 8)",
        ),
        ("metasync.toml", b"mode = '\xff'\n", "metasync.toml cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (".env", b"METASYNC_MODE=\xff\n", ".env cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (
            ".env",
            b"A=1\nMETASYNC_MODE merge\n",
            ".env cannot be read: not NAME=VALUE, or an unclosed quote (at line 2)",
        ),
        (
            ".env",
            b"OPENAI_API_KEY='sk-pw\n",
            ".env cannot be read: not NAME=VALUE, or an unclosed quote (at line 1)",
        ),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    name: str, content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    assert run(["settings"]) == 2
    assert capsys.readouterr().err.startswith(f"metasync: {told}")


def test_a_line_of_another_program_may_be_anything(capfd: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("some thing\n'unbalanced\nMETASYNC_LEASE=7m\n")
    assert run(["settings"]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "7m" in shown.out


def test_a_secret_that_is_no_text_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    Path("secrets").mkdir()
    Path("secrets/OPENAI_API_KEY").write_bytes(b"\xff")
    assert run(["settings", "--secrets-dir", "secrets"]) == 2
    told = capfd.readouterr().err
    assert "openai_api_key" in told
    assert "can't decode" in told


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--queue-ur", "postgresql://me:hunter-2@host/db"],
        ["status", "--queue-ur=postgresql://me:hunter#2@host/db"],
        ["--queue-url", "postgresql://me:hunter-2@host/db", "status"],
        ["redis://:hunter-2@host"],
        ["dead", "show", "redis://:hunter-2@host"],
    ],
)
def test_a_password_in_a_mistyped_command_is_not_repeated(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    shown = capsys.readouterr().err
    assert "hunter" not in shown
    assert "***" in shown
