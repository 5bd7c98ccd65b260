"""Verbs accept the arguments and settings that they declare, and name those that they refuse."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings, default_text, flag, is_secret, load, variable
from tests.cli.inside import run
from tests.e2e.processes import Command
from worker.cli.flags import setting_arguments
from worker.cli.main import main
from worker.cli.verbs import VERBS, commands_of, module_name

CLI = Path(__file__).parents[2] / "worker" / "cli"
COMMANDS = [command for verb in VERBS for command in commands_of(verb)]
NEEDED = {"apply": ["x.jsonl"], "enqueue": ["x.jsonl"], "completion": ["bash"]} | {
    f"batch {action}": ["x"] for action in ("show", "wait", "withdraw")
}

GIVEN = {
    "openai_base_url": "http://127.0.0.1:9/v1",
    "openai_org_id": "org-1",
    "openai_project_id": "proj-1",
    "auth": "api-key",
    "trust_env": True,
    "queue_url": "sqlite:///other.db",
    "store_timeout": "11s",
    "mode": "replace",
    "max_concurrency": "7",
    "requests_per_minute": "500",
    "request_timeout": "12s",
    "lease": "10m",
    "batch_size": "9",
    "max_attempts": "3",
    "give_up_after": "2h",
    "not_found_grace": "1h",
    "semantics": "merge",
    "read_lag": "30s",
    "dead_retention": "30d",
    "keep": "14d",
    "halt_timeout": "0",
    "shutdown_grace": "1500ms",
    "log_format": "json",
    "log_level": "debug",
    "log_values": True,
    "http_host": "localhost",
    "http_port": "8080",
    "intake_max_pending": "5",
    "secrets_dir": "secrets",
}
BAD = {
    "openai_base_url": "http://example.com",
    "auth": "none",
    "store_timeout": "0",
    "mode": "patch",
    "max_concurrency": "many",
    "requests_per_minute": "0",
    "request_timeout": "soon",
    "lease": "10ms",
    "batch_size": "0",
    "max_attempts": "0",
    "give_up_after": "-1",
    "not_found_grace": "-1",
    "semantics": "patch",
    "read_lag": "-1",
    "dead_retention": "30",
    "keep": "7",
    "halt_timeout": "never",
    "shutdown_grace": "1 week",
    "log_format": "xml",
    "log_level": "loud",
    "http_host": "",
    "http_port": "70000",
    "secrets_dir": "nowhere",
}


def test_every_setting_but_secrets_can_be_given_as_a_flag(command: Command) -> None:
    (command.folder / "secrets").mkdir()
    words = [flag(name) if value is True else f"{flag(name)}={value}" for name, value in GIVEN.items()]
    shown = json.loads(command.run("settings", "--json", *words).stdout)
    from_flags = {name for name, setting in shown.items() if setting["source"] == "flag"}
    assert from_flags == {variable(name) for name in GIVEN}
    assert from_flags == set(shown) - {"OPENAI_API_KEY", "METASYNC_HTTP_TOKEN", "METASYNC_INTAKE_TOKEN"}
    expected = {"OPENAI_ORG_ID": "org-1", "METASYNC_TRUST_ENV": "true", "METASYNC_SHUTDOWN_GRACE": "1500ms"}
    assert {name: shown[name]["value"] for name in expected} == expected


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_setting_is_named_by_the_flag_that_it_came_from(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["settings", f"{flag(name)}={BAD[name]}"])
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert re.search(rf"(argument|metasync:) {flag(name)}\b", shown.err)
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_an_unknown_flag_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), *NEEDED.get(name, ()), "--frobnicate"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --frobnicate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "--max-duration", "soon"], "--max-duration"),
        (["apply", "x", "--mode", "patch"], "--mode"),
        (["enqueue", "x", "--format", "xml"], "--format"),
        (["enqueue"], "FILE"),
        (["dead", "show", "one"], "NUMBER"),
        (["dead", "show", "0"], "NUMBER"),
        (["dead", "show", "-1"], "NUMBER"),
        (["dead", "show", "1_0"], "NUMBER"),
        (["dead", "show", str(2**63)], "NUMBER"),
        (["dead", "list", "--reason", "boredom"], "--reason"),
        (["dead", "list", "--completion"], "--completion"),
        (["completion", "fish"], "SHELL"),
        (["completion"], "SHELL"),
        (["settings", "--no-http-port"], "--no-http-port"),
    ],
)
def test_a_bad_or_missing_value_is_named(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("name", [name for name in GIVEN if default_text(name)])
def test_a_default_means_the_same_as_it_is_written(name: str) -> None:
    written: object = default_text(name)
    assert getattr(load({name: written}).settings, name) == getattr(load().settings, name)


def _modules(name: str, seen: set[str]) -> Iterator[Path]:
    """The verb's module, and those of the command line that it imports."""
    path = CLI / f"{name}.py"
    if name in seen or not path.exists():
        return
    seen.add(name)
    yield path
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("worker.cli."):
            yield from _modules(str(node.module).rpartition(".")[2], seen)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("demo", "settings", "doctor")])
def test_a_verb_has_a_flag_for_every_setting_that_it_uses(verb: str) -> None:
    """The demo brings its own settings; two verbs show them all; a drain serves nothing, and a pull has no queue."""
    text = "".join(path.read_text() for path in _modules(module_name(verb), set()))
    used = {name for name in re.findall(r"settings\.(\w+)", text) if name in Settings.model_fields}
    used = {name for name in used if not is_secret(name)}
    used -= {"http_host", "http_port", "intake_max_pending"} if verb == "apply" else set()
    used -= {"queue_url", "store_timeout", "mode"} if verb == "pull" else set()
    for command in commands_of(verb):
        declared = {argument.path[-1] for argument in setting_arguments(command.model)}
        assert declared - {"secrets_dir"} == used
