"""CONTRIBUTING names every file that a new setting, verb, verdict or store needs."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()

SUFFIXES = (".py", ".md", ".toml", ".sql", ".lua")


def _named(example: str) -> set[str]:
    """The files of the list that takes this for its example."""
    found = re.search(rf"^<!-- tested: {example} -->\n((?:[* ] .*\n)+)", PAGE, re.MULTILINE)
    assert found, example
    return set(re.findall(r"^\* `([^`]+)`: ", found[1], re.MULTILINE))


def _mentions(path: Path, pattern: str) -> bool:
    files = path.rglob("*") if path.is_dir() else [path]
    return any(re.search(pattern, each.read_text(), re.IGNORECASE) for each in files if each.suffix in SUFFIXES)


@pytest.mark.parametrize(
    ("example", "pattern", "folders"),
    [
        ("give_up_after", r"give_up_after", ("config", "worker")),
        ("migrate", r"\bmigrate\b", ("config", "worker/cli")),
        (
            "proxy",
            r"Halt\.PROXY|\"proxy\"|`proxy`",
            ("worker/api", "worker/cli", "worker/flow", "worker/engine", "worker/web"),
        ),
        ("redis", r"redis", ("config", "worker")),
    ],
)
def test_the_list_names_each_file_that_such_a_thing_needs(example: str, pattern: str, folders: tuple[str, ...]) -> None:
    named = _named(example)
    assert named
    for name in named:
        assert _mentions(ROOT / name, pattern), f"{name} has no {example}"
    for path in [each for folder in folders for each in (ROOT / folder).rglob("*.py")]:
        name = str(path.relative_to(ROOT))
        is_named = name.startswith(tuple(named))
        assert is_named or not _mentions(path, pattern), f"{name} has {example}, and is not in the list"


def test_every_target_and_script_that_is_named_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", PAGE, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert (ROOT / ".ci" / "run").exists()


def test_the_workflow_runs_what_decides_on_every_python_that_is_promised() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert job["strategy"]["matrix"]["python"] == promised
    assert ".ci/run" in job["steps"][-1]["run"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks["repos"][0]["hooks"][0]["entry"] == "make lint"


@pytest.mark.parametrize(
    "package",
    [path.parent for root in ("benchmarks", "config", "worker") for path in (ROOT / root).rglob("__init__.py")],
    ids=lambda package: str(package.relative_to(ROOT)),
)
def test_a_package_says_in_a_few_lines_what_is_in_it_and_where_to_begin(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert docstring
    assert "Begin with " in docstring
    assert len(docstring.splitlines()) <= 8
    for name in re.findall(r"`(\w+\.py)`", docstring):
        assert (package / name).exists(), name
