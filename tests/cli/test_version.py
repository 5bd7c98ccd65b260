"""`metasync --version -v` names the system, and the commit if it is known."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.inside import run
from worker.commit import commit_of

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _git(folder: Path, *words: str) -> str:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    program = shutil.which("git") or "git"
    done = subprocess.run(
        [program, *identity, *words], cwd=folder, env=alone, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What a build needs, without what it is kept in."""
    folder = tmp_path / "sources"
    ignored = shutil.ignore_patterns("__pycache__", "COMMIT")
    for name in ("metasync", "worker", "config", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _checkout(folder: Path) -> str:
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "all")
    return _git(folder, "rev-parse", "HEAD")


def _installed(folder: Path, place: Path, **environment: str) -> list[str]:
    """Build a wheel, unpack it as site-packages has it, and give the lines of `--version -v`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SOURCE_COMMIT"))}
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place / "dist")]
    subprocess.run(build, cwd=folder, env=kept | environment, capture_output=True, timeout=120, check=True)
    [wheel] = (place / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, place / "site", "zip")
    ask = "import sys; sys.path.insert(0, sys.argv.pop()); from metasync.__main__ import main; sys.exit(main())"
    words = [sys.executable, "-P", "-c", ask, "--version", "-v", str(place / "site")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_the_version_alone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"metasync {version('metasync')}\n"


@pytest.mark.parametrize("words", [["--version", "-v"], ["-v", "--version"], ["-V", "-v"]])
def test_with_v_it_says_commit_python_and_each_library(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    first, commit, python, *libraries = capsys.readouterr().out.splitlines()
    assert first == f"metasync {version('metasync')}"
    assert re.fullmatch(r"commit ([0-9a-f]{40}(-dirty)?|unknown)", commit)
    assert ".".join(map(str, sys.version_info[:3])) in python
    shown = dict(line.split(" ", 1) for line in libraries)
    assert {name: shown[name] for name in ("aiohttp", "apsw", "asyncpg", "redis")} == {
        name: version(name) for name in ("aiohttp", "apsw", "asyncpg", "redis")
    }
    assert "SQLite" in shown


def test_v_without_a_version_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-v"]) == 2
    assert "-v goes with --version" in capsys.readouterr().err


def test_a_checkout_says_its_commit_and_whether_it_was_changed(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(sources) is None
    head = _checkout(sources)
    monkeypatch.setenv("GIT_DIR", str(ROOT / "nothing"))  # as where a hook of another checkout runs us
    assert commit_of(sources) == head
    (sources / "README.md").write_text("changed")
    assert commit_of(sources) == f"{head}-dirty"


def test_site_packages_within_another_checkout_do_not_say_that_ones_commit(sources: Path) -> None:
    _checkout(sources)
    inside = sources / ".venv" / "site-packages"
    (inside / "worker").mkdir(parents=True)
    assert commit_of(inside) is None


def test_without_git_the_commit_is_unknown(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkout(sources)
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit_of(sources) is None


def test_a_wheel_says_the_commit_of_the_checkout_that_it_was_built_in(sources: Path, tmp_path: Path) -> None:
    head = _checkout(sources)
    assert _installed(sources, tmp_path)[1] == f"commit {head}"


@pytest.mark.parametrize(("told", "said"), [(COMMIT, COMMIT), ("", "unknown")])
def test_a_wheel_of_a_folder_without_git_says_what_the_build_is_told(
    sources: Path, tmp_path: Path, told: str, said: str
) -> None:
    assert _installed(sources, tmp_path, SOURCE_COMMIT=told)[1] == f"commit {said}"


def test_an_archive_keeps_the_commit_for_the_wheel_that_is_built_of_it(sources: Path, tmp_path: Path) -> None:
    head = _checkout(sources)
    words = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path / "dist")]
    subprocess.run(words, cwd=sources, capture_output=True, timeout=120, check=True)
    [archive] = (tmp_path / "dist").glob("*.tar.gz")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "unpacked"], check=True)
    [folder] = (tmp_path / "unpacked").iterdir()
    assert _installed(folder, tmp_path / "place", SOURCE_COMMIT=COMMIT)[1] == f"commit {head}"
