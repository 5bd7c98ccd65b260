"""Every dependency is used: imported, called as a program, or taken by pytest, mypy or the build."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEVELOPMENT = [name for name in PROJECT["dependency-groups"]["dev"] if isinstance(name, str)]
RUNTIME = [
    *PROJECT["project"]["dependencies"],
    *(each for extra in PROJECT["project"]["optional-dependencies"].values() for each in extra),
]
# What a plugin of pytest is asked for by: its own entry point names it, and nothing imports it.
PLUGINS = {"pytest-asyncio": "asyncio_mode", "pytest-timeout": "timeout", "pytest-xdist": "-n"}
OF_THE_BUILD = {"editables"}  # hatchling imports it to install the folder in place


def _named(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0]


@cache
def _sources() -> tuple[Path, ...]:
    folders = ("benchmarks", "config", "deploy", "docs", "metasync", "tests", "worker")
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".yaml"})
    return (*inside, ROOT / "hatch_build.py", ROOT / "Makefile", ROOT / ".ci" / "run")


@cache
def _imported() -> frozenset[str]:
    """Each module that our code names in an import, with all that it lies in."""
    found = set[str]()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())) if path.suffix == ".py" else ():
            match node:
                case ast.Import(names=names):
                    found |= {alias.name for alias in names}
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    found |= {module, *(f"{module}.{alias.name}" for alias in names)}
                case ast.Call(func=ast.Name(id="files" | "find_spec"), args=[ast.Constant(value=str(module))]):
                    found.add(module)
    return frozenset(".".join(name.split(".")[:count]) for name in found for count in range(1, name.count(".") + 2))


@cache
def _called() -> str:
    """The text of what starts programs."""
    return "\n".join(path.read_text() for path in _sources() if path != Path(__file__))


def _modules(found: Distribution) -> Iterator[str]:
    for file in found.files or ():
        parts = file.parts
        if parts[-1].endswith((".py", ".pyi", ".so")) and ".." not in parts and not parts[0].endswith(".dist-info"):
            folders = parts[:-1] if len(parts) > 1 else (parts[0].partition(".")[0],)
            yield from (".".join(folders[:count]) for count in range(1, len(folders) + 1))


def _is_used(name: str) -> bool:
    if name in OF_THE_BUILD:
        return True
    if name in PLUGINS:
        return PLUGINS[name] in str(PROJECT["tool"]["pytest"])
    found = distribution(name)
    # A namespace that several share, such as `google`, tells nothing: the modules below it do.
    modules = {module.removesuffix("-stubs") for module in _modules(found)} - {"opentelemetry"}
    programs = {entry.name for entry in found.entry_points if entry.group == "console_scripts"}
    programs |= {Path(str(file)).name for file in found.files or () if "/bin/" in str(file) and ".." in str(file)}
    imported = {module.replace("-stubs.", ".") for module in modules} & _imported()
    return bool(imported) or any(re.search(rf"(/|\"){re.escape(each)}\b", _called()) for each in programs)


@pytest.mark.parametrize("requirement", [*DEVELOPMENT, *RUNTIME])
def test_each_dependency_is_used(requirement: str) -> None:
    assert _is_used(_named(requirement)), f"nothing uses {requirement}: take it out of pyproject.toml"


def test_a_dependency_that_nothing_uses_is_noticed() -> None:
    assert not _is_used("pluggy")  # pytest's own: our code does not name it
