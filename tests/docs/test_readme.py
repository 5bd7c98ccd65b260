"""What the README says to paste works when it is pasted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import KEY, METASYNC, Command, running_simulator

README = (Path(__file__).parents[2] / "README.md").read_text()


def _snippet(name: str) -> str:
    found = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


@pytest.mark.parametrize("steps", [("apply",), ("daemon", "python"), ("apply", "dead")])
def test_pasted_commands_work(tmp_path: Path, steps: tuple[str, ...]) -> None:
    with running_simulator(tmp_path, "--completions", "2") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
        environment = Command(tmp_path, settings).environment
        environment["PATH"] = f"{Path(METASYNC).parent}:{environment['PATH']}"
        (tmp_path / "labels.jsonl").write_text(_snippet("labels.jsonl"))
        for step in steps:
            text = _snippet(step).replace("export OPENAI_API_KEY=sk-...\n", "")
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
    root = Path(__file__).parents[2]
    for name in [*re.findall(r"\]\(([^)#]+)\)", README), "Dockerfile", "deploy/kubernetes"]:
        assert (root / name).exists(), name
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make (\w+)", README)) <= targets
