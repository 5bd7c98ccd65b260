"""The cost of starting a command, in a user's environment: the locked dependencies and a built wheel."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.case import Contenders
from benchmarks.running import Work, cost

_ROOT = Path(__file__).parents[1]


@contextmanager
def contenders(_: int) -> Iterator[Contenders]:
    """The most frequent commands, and the interpreter alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Work(1).environment("http://127.0.0.1:9/v1", f"sqlite:///{folder}/queue.db")
        given = os.environ.get("METASYNC_BENCH_COMMAND")
        metasync = Path(given) if given else _installed(folder)
        commands: dict[str, list[str | Path]] = {
            "metasync --help": [metasync, "--help"],
            "metasync status": [metasync, "status"],
            "metasync run --drain, nothing to do": [metasync, "run", "--drain"],
            "python -c pass": [metasync.with_name("python"), "-c", "pass"],
        }
        cost([metasync, "run", "--drain"], environment, folder)  # makes the queue, and compiles the imports
        yield {label: partial(cost, command, environment, folder) for label, command in commands.items()}


def _installed(folder: Path) -> Path:
    """Install the project without its developers' dependencies; return the command."""
    environment, wheels = folder / "environment", folder / "wheels"
    python = environment / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
    locked = _ROOT / "requirements" / "run.txt"
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", environment],
        [*pip, "--require-hashes", "--requirement", locked],
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels],
    ]
    for command in commands:
        subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*pip, "--no-deps", "--no-index", *wheels.glob("*.whl")], check=True)
    return python.with_name("metasync")
