"""Which `worker` and `config` are imported if other files have these names; what `metasync` exports."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import metasync
import worker
from tests.e2e.processes import METASYNC, Command

ROOT = Path(__file__).parents[2]


def test_metasync_exports_what_worker_does_and_all_that_is_to_be_caught() -> None:
    assert metasync.__all__ == worker.__all__
    for name in metasync.__all__:
        assert getattr(metasync, name) is getattr(worker, name)
    assert set(metasync.__all__) <= set(dir(metasync))
    documented = "\n".join(str(getattr(metasync, name).__doc__) for name in ("open_queue", "open_queue_sync"))
    documented += "\n".join(str(each.__doc__) for each in vars(metasync.Queue).values())
    raised = set(re.findall(r"^\s+([A-Z]\w+): ", documented, re.MULTILINE)) - {"Args", "Raises", "ValueError"}
    assert {"QueueUnusable", "QueueUnavailable", "InvalidChange"} <= raised <= set(metasync.__all__)
    with pytest.raises(AttributeError):
        _ = metasync.nothing


def test_the_packages_are_typed() -> None:
    for package in ("metasync", "worker", "config"):
        assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("theirs", ["worker.py", "config.py", "worker/__init__.py", "config/__init__.py"])
@pytest.mark.parametrize("start", ["metasync", "python -m metasync"])
def test_the_command_works_with_foreign_modules_first_on_the_path(
    command: Command, tmp_path: Path, theirs: str, start: str
) -> None:
    file = tmp_path / "project" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("raise SystemExit('this is mine')\n")
    (tmp_path / "project/queue.py").write_text("raise SystemExit('this is mine')\n")
    words = [METASYNC] if start == "metasync" else [sys.executable, "-m", "metasync"]
    environment = command.environment
    if start == "metasync" and "queue.py" not in theirs:
        (tmp_path / "project/queue.py").unlink()  # before the standard library, for every program
        environment["PYTHONPATH"] = str(tmp_path / "project")
    done = subprocess.run(
        [*words, "status", "--json", "--queue-url", "memory:"],
        cwd=tmp_path / "project",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pending"] == 0


@pytest.mark.parametrize("imported_before", [False, True])
def test_an_import_says_whose_file_stands_in_the_way(tmp_path: Path, *, imported_before: bool) -> None:
    (tmp_path / "worker.py").write_text("ours = False\n")
    program = f"{'import worker; ' if imported_before else ''}from metasync import open_queue"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path}/worker.py stands in the way: metasync needs a package of its own")


def test_a_foreign_config_module_does_not_affect_producers(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("raise SystemExit('this is mine')\n")
    program = (
        "from metasync import open_queue_sync\nwith open_queue_sync('memory:') as queue: print(queue.status().pending)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.parametrize("missing", ["config/settings.py", "config", "worker/cli", "worker"])
def test_a_command_that_is_not_whole_says_which_folder_it_is(tmp_path: Path, missing: str) -> None:
    for package in ("metasync", "worker", "config"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()

    done = subprocess.run(
        [sys.executable, "-P", "-m", "metasync", "status"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith(f"metasync: {tmp_path / missing.partition('/')[0]} is not whole (")
    assert done.stderr.count("\n") == 1
