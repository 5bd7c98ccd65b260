"""Every test is in `make test-fast`, or in slow.txt with the reason; fast tests need no server."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAST = (ROOT / "tests" / "fast.txt").read_text().splitlines()
_SLOW_LINES = (ROOT / "tests" / "slow.txt").read_text().splitlines()
SLOW = [line.split(maxsplit=1) for line in _SLOW_LINES if not line.startswith("#")]

# Who imports these starts servers, browsers, or the command as a process.
_HEAVY = frozenset(
    {
        "playwright",
        "tests.chaos",
        "tests.cli.tmux",
        "tests.e2e.processes",
        "tests.queue.postgres_server",
        "tests.queue.redis_server",
        "tests.web.browser",
    }
)


def test_every_test_is_fast_or_is_named_with_the_reason_why_not() -> None:
    slow = tuple(name for name, _ in SLOW)
    unplaced, twice = [], []
    for path in (ROOT / "tests").rglob("test_*.py"):
        name = path.relative_to(ROOT).as_posix()
        places = (name in FAST) + any(name == each or name.startswith(f"{each}/") for each in slow)
        unplaced += [name] * (places == 0)
        twice += [name] * (places > 1)
    assert not unplaced, "put them into tests/fast.txt or, with the reason, into tests/slow.txt"
    assert not twice, "they stand in both of tests/fast.txt and tests/slow.txt"


def test_what_is_named_is_there_once_and_in_order() -> None:
    for names in (FAST, [name for name, _ in SLOW]):
        assert names == sorted(set(names))
        assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", FAST)
def test_what_is_fast_starts_neither_servers_nor_a_browser_nor_the_command(name: str) -> None:
    path = ROOT / name
    imported = set(_imported(path))
    for folder in path.parents:
        if folder != ROOT / "tests" and (fixtures := folder / "conftest.py").is_file():
            imported |= _imported(fixtures)
    assert not imported & _HEAVY


@cache
def _imported(path: Path) -> frozenset[str]:
    """The modules that this file of the tests imports, by way of others of the tests too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    for module in [each for each in found if each.startswith("tests.")]:
        file = ROOT / f"{module.replace('.', '/')}.py"
        if file.is_file():
            found |= _imported(file)
    return frozenset({part for module in found for part in (module, module.rpartition(".")[0], module.split(".")[0])})
