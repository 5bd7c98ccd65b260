"""The container's conditions without a container: the wheel, another user, a read-only file system, no shell."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.e2e.processes import KEY, RunningSimulator, running_simulator, stopped, wait_for_event, write_changes
from tests.needs import skip_not_permitted
from tests.web.asking import Surface

ROOT = Path(__file__).parents[2]
UID = 10001
TOKEN = "a-token-of-this-test"
CHANGES = 400
_GRACE_SECONDS = 25


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The command of the wheel, in an environment with only the locked dependencies, readable by all users."""
    with tempfile.TemporaryDirectory(prefix="metasync-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        python = folder / "venv/bin/python"
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(ROOT))
        venv.create(folder / "venv")
        _add_locked(Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")})))
        _pip("--python", str(python), "check")
        _pip("--python", str(python), "install", "--no-deps", *map(str, (folder / "dist").glob("*.whl")))
        yield folder / "venv/bin/metasync"


def _add_locked(packages: Path) -> None:
    """Copy what the lock names from where the tests run: pip would take fourteen seconds of the processor for it.

    It was installed there by the same hashes: what one lock says of a package, the other says too.
    """
    installed = _entries("requirements/dev.txt")
    for entry in _entries("requirements/run.txt"):
        assert entry in installed
        locked = Requirement(entry.split("--hash")[0])
        if locked.marker and not locked.marker.evaluate():
            continue
        found = distribution(locked.name)
        assert f"=={found.version}" == str(locked.specifier), f"`make venv` installs {locked}"
        for file in found.files or ():
            source, target = Path(str(file.locate())), packages / file
            if ".." not in file.parts and source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)  # with its time, that what is compiled is taken for current


def _entries(lock: str) -> set[str]:
    """Each package of a lock: its version, where it is for, and its hashes."""
    lines = (ROOT / lock).read_text().replace("\\\n", "").splitlines()
    return {" ".join(line.split()) for line in lines if not line.startswith("#")}


def _pip(*words: str) -> None:
    """The one that is here: a pip of its own is a fifth of what the environment costs to make."""
    flags = ["--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *flags, *words], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


@dataclass(frozen=True)
class Container:
    """What a container gives the command: a user, secrets, a folder for the queue, and another that it starts in."""

    command: Path
    folder: Path
    environment: dict[str, str]

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start it as the leader of a session and process group of its own, with no shell between."""
        return subprocess.Popen(
            [self.command, *words],
            cwd=self.folder / "start",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=UID,
            group=UID,
            extra_groups=[],
        )

    def run(self, *words: str) -> tuple[int, str]:
        with stopped(self.start(*words)) as process:
            _, log = process.communicate(timeout=90)
            return process.returncode, log.decode()


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator("--latency", "100ms-300ms") as running:
        yield running


@pytest.fixture
def container(installed: Path, simulator: RunningSimulator) -> Iterator[Container]:
    if os.geteuid() != 0:
        skip_not_permitted("only root can start a process as another user")
    with tempfile.TemporaryDirectory(prefix="metasync-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("secrets", "start", "data"):
            (folder / part).mkdir()
        secrets = {"OPENAI_API_KEY": KEY, "METASYNC_HTTP_TOKEN": TOKEN}
        for secret, value in secrets.items():
            path = folder / "secrets" / secret
            path.write_text(value)
            path.chmod(0o440)
            os.chown(path, 0, UID)
        (folder / "start").chmod(0o555)
        os.chown(folder / "data", UID, UID)
        settings = {
            "METASYNC_SECRETS_DIR": str(folder / "secrets"),
            "METASYNC_QUEUE_URL": f"sqlite:///{folder}/data/metasync.db",
            "METASYNC_HTTP_HOST": "0.0.0.0",  # noqa: S104 -- as in a container, so that the token is asked for
            "METASYNC_HTTP_PORT": "0",
            "METASYNC_LOG_FORMAT": "json",
            "METASYNC_SHUTDOWN_GRACE": f"{_GRACE_SECONDS}s",
            "METASYNC_MAX_CONCURRENCY": "8",
            "OPENAI_BASE_URL": simulator.base_url,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        yield Container(installed, folder, settings)
        assert list((folder / "start").iterdir()) == []


def _fill(container: Container, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"count": CHANGES})
    changes = [
        {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"number": str(number)}}
        for number in range(1, CHANGES + 1)
    ]
    file = write_changes(container.folder / "changes.jsonl", changes)
    code, log = container.run("enqueue", file)
    assert code == 0, log


def _applied(simulator: RunningSimulator) -> set[str]:
    return {completion_id for completion_id, metadata in simulator.ask("/metadata").items() if metadata}


def _ready(process: "subprocess.Popen[bytes]") -> None:
    surface = Surface(wait_for_event(process, "web.started")["port"])
    wait_for_event(process, "worker.started")
    assert surface.ask("/readyz")[0] == 200
    assert surface.ask("/metrics")[0] == 401
    assert surface.ask("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def _drain(container: Container, simulator: RunningSimulator) -> list[dict[str, Any]]:
    """Let another run finish what is left, and check that nothing is missing."""
    simulator.ask("/options", {"latency": 0.0})
    code, log = container.run("run", "--drain")
    assert code == 0, log[-2000:]
    wanted = {f"chatcmpl-{number:06d}": {"number": str(number)} for number in range(1, CHANGES + 1)}
    assert simulator.ask("/metadata") == wanted
    assert simulator.ask("/counters")["violations"] == []
    return [json.loads(line) for line in log.splitlines()]


def test_sigterm_under_load_ends_it_within_its_grace_with_everything_accounted_for(
    container: Container, simulator: RunningSimulator
) -> None:
    _fill(container, simulator)
    with stopped(container.start("run")) as process:
        assert Path(f"/proc/{process.pid}").stat().st_uid == UID
        assert (os.getsid(process.pid), os.getpgid(process.pid)) == (process.pid, process.pid)
        _ready(process)
        first = wait_for_event(process, "change.applied")
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=_GRACE_SECONDS + 15)
    assert process.returncode == 0
    events = [first, *map(json.loads, rest.splitlines())]
    assert events[-1]["event"] == "run.summary"
    applied = {event["completion_id"] for event in events if event["event"] == "change.applied"}
    assert applied <= _applied(simulator)
    assert 0 < len(applied) < CHANGES
    # What the worker left is due at once: with a lease kept, the drain would leave it, or wait out five minutes.
    again = _drain(container, simulator)
    repeated = {event["completion_id"] for event in again if event["event"] in ("change.applied", "change.unchanged")}
    assert len(repeated) == CHANGES - events[-1]["applied"]


def test_sigkill_under_load_loses_nothing(container: Container, simulator: RunningSimulator) -> None:
    _fill(container, simulator)
    container.environment["METASYNC_LEASE"] = "2s"
    with stopped(container.start("run")) as process:
        _ready(process)
        wait_for_event(process, "change.applied")
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 0 < len(_applied(simulator)) < CHANGES
    _drain(container, simulator)


def test_what_is_installed_is_typed_and_has_the_producers_face(installed: Path, tmp_path: Path) -> None:
    program = """
import importlib.resources, importlib.metadata
from metasync import open_queue_sync
assert all(importlib.resources.files(name).joinpath("py.typed").is_file() for name in ("metasync", "worker", "config"))
with open_queue_sync("sqlite:///queue.db") as queue:
    print(queue.put({"completion_id": "chatcmpl-1", "metadata": {}, "mode": "replace"}).added)
"""
    done = subprocess.run(
        [installed.parent / "python", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
