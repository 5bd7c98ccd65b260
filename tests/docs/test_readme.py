"""What the README says to paste works when it is pasted."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import KEY, METASYNC, Command, running_simulator

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("steps", [("apply",), ("daemon", "python"), ("apply", "dead"), ("sync",)])
def test_pasted_commands_work(tmp_path: Path, steps: tuple[str, ...]) -> None:
    with running_simulator(tmp_path, "--completions", "2") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
        environment = Command(tmp_path, settings).environment
        environment["PATH"] = f"{Path(METASYNC).parent}:{environment['PATH']}"
        (tmp_path / "labels.jsonl").write_text(snippet("README.md", "labels.jsonl"))
        for step in steps:
            text = snippet("README.md", step).replace("export OPENAI_API_KEY=sk-...\n", "")
            # A job that was put into the background is ended with the shell.
            script = f"trap 'jobs -p | xargs -r kill; wait' EXIT\n{text}"
            words = [sys.executable, "-c", text] if step == "python" else ["/bin/bash", "-ec", script]
            done = subprocess.run(
                words,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        if steps[0] == "apply":
            assert simulator.ask("/metadata/chatcmpl-000001") == {"grade": "A"}
            assert simulator.ask("/metadata/chatcmpl-000002") == {"topic": "billing"}


def test_what_the_readme_names_is_there() -> None:
    for name in [*re.findall(r"\]\(([^)#]+)\)", README), "Dockerfile", "deploy/kubernetes"]:
        assert (ROOT / name).exists(), name
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make (\w+)", README)) <= targets


def test_it_is_installed_from_its_folder_with_extras_that_there_are() -> None:
    """Not by its name from an index, where that may be somebody else's."""
    lines = [line.partition("#")[0].split() for line in snippet("README.md", "install").splitlines()]
    assert [line[-2] for line in lines] == ["install"] * 4
    assert {line[-1].strip("'").partition("[")[0] for line in lines} == {"."}
    extras = set(re.findall(r"\w+", lines[-1][-1]))
    assert extras == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("worker/**/*.py")]:
        assert not re.search(r"(install|add) '?metasync\b(?! with)", page.read_text()), page
