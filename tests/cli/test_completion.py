"""The completion script, run by the shell itself."""

import shutil
import subprocess

import pytest

from tests.e2e.processes import Command
from worker.cli.verbs import VERBS

_COMPLETE = """
source metasync.bash
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_metasync metasync "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def bash(command: Command) -> Command:
    """A folder with the script in it."""
    done = command.run("completion", "bash")
    assert done.returncode == 0
    (command.folder / "metasync.bash").write_text(done.stdout)
    return command


def _completed(command: Command, words: str) -> set[str]:
    done = subprocess.run(
        ["/bin/bash", "-c", _COMPLETE.format(words=words)],
        cwd=command.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_script_is_valid_bash(bash: Command) -> None:
    assert subprocess.run(["/bin/bash", "-n", "metasync.bash"], cwd=bash.folder, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("metasync ''", set(VERBS)),
        ("metasync st", {"status"}),
        ("metasync run --dr", {"--drain"}),
        ("metasync run --org", {"--org-id"}),
        ("metasync run --no-", {"--no-trust-env", "--no-log-values"}),
        ("metasync run --log-level w", {"warning"}),
        ("metasync dead ''", {"list", "show", "retry", "purge"}),
        ("metasync dead retry --al", {"--all"}),
        ("metasync simulator --limit-kind s", {"sliding-window"}),
        ("metasync completion ''", {"bash", "zsh"}),
    ],
)
def test_bash_completes_verbs_actions_flags_and_values(bash: Command, words: str, some: set[str]) -> None:
    assert some <= _completed(bash, words)


def test_bash_completes_the_names_of_files(bash: Command) -> None:
    (bash.folder / "labels.jsonl").touch()
    assert "labels.jsonl" in _completed(bash, "metasync enqueue lab")
    assert "labels.jsonl" in _completed(bash, "metasync apply --rejects lab")


def test_there_is_a_script_for_zsh(command: Command) -> None:
    done = command.run("completion", "zsh")
    assert done.stdout.startswith("#compdef metasync")
    assert all(f"\n    {verb}:'" in done.stdout for verb in VERBS)
    if zsh := shutil.which("zsh"):
        assert subprocess.run([zsh, "-n"], input=done.stdout, text=True, check=False).returncode == 0
