"""The generated pages are up to date and complete."""

import ast
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, default_text, flag, is_secret, variable
from worker.cli.exits import Exit
from worker.cli.main import main
from worker.cli.verbs import VERBS, commands_of
from worker.engine import Ending

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference.md").read_text()
COMMANDS = [command for verb in VERBS for command in commands_of(verb)]


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "reference.py"))


def _rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def _section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_the_page_says_what_the_code_does(generated: dict[str, Any]) -> None:
    assert generated["render"]() == PAGE, "run `make docs`"


def test_the_schemas_are_those_of_the_code(generated: dict[str, Any]) -> None:
    published = {path.name: path.read_text() for path in (ROOT / "docs" / "schemas").iterdir()}
    assert published == generated["schemas"](), "run `make docs`"
    assert set(re.findall(r"\]\(schemas/([^)]+)\)", PAGE)) == set(published)


def test_nothing_of_the_parser_shows_and_no_meaning_is_missing() -> None:
    assert "%(" not in PAGE
    assert "%%" not in PAGE
    assert "None" not in PAGE
    rows = _rows(PAGE)
    assert len(rows) > 100
    assert [row for row in rows if not row[0] or not row[-1]] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_argument_that_a_command_takes_is_listed(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.name.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    taken = set(re.findall(r"(?<=[\s\[])--[a-z0-9-]+", shown.partition("\n\n")[0]))
    if positional := re.search(r"^positional arguments:\n(.*?)\n\n", shown, re.MULTILINE | re.DOTALL):
        taken |= set(re.findall(r"^  (\w+)", positional[1], re.MULTILINE))
    assert taken
    listed = _section(f"`metasync {command.name}`")
    assert {name for name in taken if not re.search(rf"`{name}[ `]", listed)} == set()
    assert command.summary[1:] in listed
    assert command.summary[1:] in re.sub(r"\s+", " ", shown)


def test_every_setting_is_listed_with_its_default_as_people_write_it() -> None:
    rows = {row[0]: row[1:] for row in _rows(_section("Settings"))}
    for name, field in Settings.model_fields.items():
        listed = rows[f"`{variable(name)}`"]
        assert listed[0] == ("none: a secret" if is_secret(name) else f"`{flag(name)}`")
        assert listed[1] == (f"`{default_text(name)}`" if field.default is not None else "")
        assert listed[2] == field.description
    assert rows["`METASYNC_GIVE_UP_AFTER`"][1] == "`6h`"
    assert rows["`METASYNC_SHUTDOWN_GRACE`"][1] == "`25s`"
    assert rows["`METASYNC_LOG_VALUES`"][1] == "`false`"
    assert {row for row, cells in rows.items() if cells[0] == "none: a secret"} == {
        "`OPENAI_API_KEY`",
        "`METASYNC_HTTP_TOKEN`",
        "`METASYNC_INTAKE_TOKEN`",
    }


def test_every_exit_code_is_listed_with_its_meaning_and_help_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(_section("Exit codes"))[1:]
    assert rows == [[str(code.value), code.meaning] for code in Exit]
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for code in Exit:
        assert re.search(rf"^  {code.value} +{re.escape(code.meaning.replace('`', ''))}$", shown, re.MULTILINE)


def test_every_ending_is_listed() -> None:
    rows = _rows(_section("How a run ends"))[1:]
    assert {row[0] for row in rows} == {f"`{ending}`" for ending in Ending}
    assert {code for row in rows for code in re.findall(r"\d+", row[2])} <= {str(code.value) for code in Exit}


def test_every_log_event_is_listed_with_its_fields(generated: dict[str, Any]) -> None:
    """Those that are named where it is logged; what `**` hands on is the same for all `change.*`, or the summary's."""
    logged = defaultdict[str, set[str]](set)
    for path in [*(ROOT / "worker").rglob("*.py"), *(ROOT / "config").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log_call(node.func) and node.args:
                match node.args[0]:
                    case ast.Constant(value=str(event)) if re.fullmatch(r"[a-z]+\.[a-z_]+", event):
                        logged[event] |= {one.arg for one in node.keywords if one.arg and one.arg != "exc_info"}
    logged["library.logged"] = {"logger", "message"}
    listed = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in _rows(_section("Log events"))[1:]}
    assert set(listed) == set(logged)
    del logged["run.summary"]
    assert {event: fields - listed[event] for event, fields in logged.items() if fields - listed[event]} == {}
    assert set().union(*logged.values()) <= set(generated["FIELDS"]), "say in FIELDS of docs/reference.py what they are"


def _is_log_call(function: ast.expr) -> bool:
    levels = {"debug", "info", "warning", "error", "exception"}
    match function:
        case ast.Attribute(attr=name):
            return name in levels
        case ast.Name(id=name):
            return name == "_log_done"
        case _:
            return False
