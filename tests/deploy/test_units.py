"""The units and the crontab line are valid, and agree with the code."""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from config.durations import duration_seconds
from config.settings import FIELDS, Settings
from worker.cli.exits import Exit
from worker.engine.worker import _FLUSH_SECONDS

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"
CRONTAB = ROOT / "deploy" / "cron" / "metasync"
INSTALLED = "/opt/metasync/bin/metasync"
METASYNC = Path(sys.executable).parent / "metasync"
ANALYZE = shutil.which("systemd-analyze")


def _service(name: str) -> dict[str, str]:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # how its documentation says to keep the case
    unit.read(SYSTEMD / name)
    return dict(unit["Service"])


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units: list[str] = []
    for unit in SYSTEMD.iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace(INSTALLED, str(METASYNC)))
        units.append(str(copy))
    assert len(units) == 3
    words = [str(ANALYZE), "verify", "--man=no", *units]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "metasync" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("command", ["run", "run --drain --max-duration 12m"])
def test_the_command_is_one(command: str) -> None:
    files = [SYSTEMD / "metasync.service", SYSTEMD / "metasync-drain.service", CRONTAB]
    assert any(f"{INSTALLED} {command}" in file.read_text() for file in files)
    environment = {"METASYNC_HTTP_HOST": "0.0.0.0", "METASYNC_HTTP_PORT": "none"}  # noqa: S104 -- refused, as is the port
    done = subprocess.run(
        [METASYNC, *shlex.split(command)], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == Exit.USAGE
    assert "METASYNC_HTTP_PORT" in done.stderr  # the words were understood, and the settings looked at


@pytest.mark.parametrize("name", ["metasync.service", "metasync-drain.service"])
def test_a_unit_has_time_for_its_grace_and_its_last_records(name: str) -> None:
    longest = duration_seconds(_service(name)["TimeoutStopSec"])
    assert isinstance(longest, float)
    assert longest > Settings.model_fields["shutdown_grace"].default + _FLUSH_SECONDS


def test_a_bad_setting_stops_the_daemon_and_a_drain_may_leave_something() -> None:
    assert _service("metasync.service")["RestartPreventExitStatus"] == str(Exit.USAGE.value)
    assert _service("metasync-drain.service")["SuccessExitStatus"] == f"{Exit.NOT_ALL.value} {Exit.RUN_AGAIN.value}"


def test_every_variable_that_is_named_is_a_setting() -> None:
    for file in (*SYSTEMD.iterdir(), CRONTAB):
        assert set(re.findall(r"\b(?:METASYNC|OPENAI)_[A-Z_]+", file.read_text())) <= set(FIELDS)
