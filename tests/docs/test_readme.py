"""The commands of the README work when pasted."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.settings import FIELDS
from tests.deploy.rendering import pod_of, rendered
from tests.docs.snippets import ROOT, snippet
from tests.e2e.processes import KEY, METASYNC, Command, running_simulator
from tests.ports import free_port

README = (ROOT / "README.md").read_text()


def _paste(folder: Path, text: str, settings: dict[str, str]) -> None:
    """Run what a page shows in a shell that finds the command; what it put into the background is ended with it."""
    environment = Command(folder, settings).environment
    environment["PATH"] = f"{Path(METASYNC).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-ec", f"trap 'jobs -p | xargs -r kill; wait' EXIT\n{text}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "steps",
    [("README.md#apply",), ("README.md#daemon",), ("README.md#apply", "README.md#dead"), ("docs/sync.md#sync",)],
)
def test_pasted_commands_work(tmp_path: Path, steps: tuple[str, ...]) -> None:
    with running_simulator("--completions", "2") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
        (tmp_path / "labels.jsonl").write_text(snippet("README.md", "labels.jsonl"))
        for step in steps:
            page, _, name = step.partition("#")
            _paste(tmp_path, snippet(page, name).replace("export OPENAI_API_KEY=sk-...\n", ""), settings)
        if "README.md#apply" in steps:
            assert simulator.ask("/metadata/chatcmpl-000001") == {"grade": "A"}
            assert simulator.ask("/metadata/chatcmpl-000002") == {"topic": "billing"}


def test_the_first_lines_to_paste_work_without_anything_else(tmp_path: Path) -> None:
    text = snippet("README.md", "try")
    assert len(text.splitlines()) == 10
    _paste(tmp_path, text.replace("9100", str(free_port())), {})


def test_the_python_that_is_shown_enqueues(tmp_path: Path) -> None:
    words = [sys.executable, "-c", snippet("README.md", "python")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(Command(tmp_path, {}).run("status", "--json").stdout)["pending"] == 1


def test_what_is_shown_to_redact_takes_the_keys_away(tmp_path: Path) -> None:
    with running_simulator("--completions", "2") as simulator:
        command = Command(tmp_path, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        (tmp_path / "before.jsonl").write_text(
            '{"completion_id": "chatcmpl-000001", "metadata": {"email": "ann@example.com", "topic": "billing"}}\n'
            '{"completion_id": "chatcmpl-000002", "metadata": {"email": "ann@example.com"}}\n'
        )
        (tmp_path / "redact.jsonl").write_text(snippet("docs/redacting.md", "redact"))
        for name in ("before.jsonl", "redact.jsonl"):
            done = command.run("apply", name)
            assert done.returncode == 0, done.stderr
        for number in (1, 2):
            assert simulator.ask(f"/metadata/chatcmpl-00000{number}").get("topic") == "billing"
            assert "email" not in simulator.ask(f"/metadata/chatcmpl-00000{number}")


def test_the_secret_that_is_shown_has_what_the_overlay_reads() -> None:
    text = snippet("README.md", "kubernetes")
    overlay = re.search(r"apply -k deploy/kubernetes/overlays/(\S+)", text)
    image = re.search(r"docker build --tag (\S+)", text)
    assert overlay
    assert image
    pod = pod_of(rendered(overlay[1]))
    assert pod["containers"][0]["image"] == image[1]
    (name,) = (volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume)
    assert f"create secret generic {name} " in text
    assert set(re.findall(r"--from-literal=(\w+)=", text)) <= set(FIELDS)
    assert "OPENAI_API_KEY" in text


def test_what_the_readme_says_comes_on_one_screen_before_the_first_thing_to_do() -> None:
    lines = README.splitlines()
    assert lines.index("## Apply a file") <= 46
    assert len(lines) <= 155
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([\w-]+)", README)) <= targets


def test_it_is_installed_from_its_folder_with_extras_that_there_are() -> None:
    """Not by its name from an index, where that may be somebody else's."""
    lines = [line.partition("#")[0].split() for line in snippet("README.md", "install").splitlines()]
    assert [line[-2] for line in lines] == ["install"] * 4
    assert {line[-1].strip("'").partition("[")[0] for line in lines} == {"."}
    extras = set(re.findall(r"\w+", lines[-1][-1]))
    assert extras == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("worker/**/*.py")]:
        assert not re.search(r"(install|add) '?metasync\b(?! with)", page.read_text()), page
