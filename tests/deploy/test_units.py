"""The units and the crontab line are valid, and agree with the code."""

import re
import shlex
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from config.durations import duration_seconds
from config.settings import FIELDS, Settings
from tests.needs import installed
from worker.cli.exits import Exit
from worker.engine.worker import _FLUSH_SECONDS

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"
CRONTAB = ROOT / "deploy" / "cron" / "metasync"
INSTALLED = "/opt/metasync/bin/metasync"
METASYNC = Path(sys.executable).parent / "metasync"


def _service(name: str) -> dict[str, str]:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # how its documentation says to keep the case
    unit.read(SYSTEMD / name)
    return dict(unit["Service"])


@installed("systemd-analyze", "systemd")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units: list[str] = []
    for unit in SYSTEMD.iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace(INSTALLED, str(METASYNC)))
        units.append(str(copy))
    assert len(units) == 3
    words = ["systemd-analyze", "verify", "--man=no", *units]
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


def test_no_dump_of_the_memory_and_no_readable_log_is_left() -> None:
    for name in ("metasync.service", "metasync-drain.service"):
        assert (_service(name)["LimitCORE"], _service(name)["UMask"]) == ("0", "0077")
    assert " umask 077; " in CRONTAB.read_text()


def test_a_bad_setting_stops_the_daemon_and_a_drain_may_leave_something() -> None:
    assert _service("metasync.service")["RestartPreventExitStatus"] == str(Exit.USAGE.value)
    assert _service("metasync-drain.service")["SuccessExitStatus"] == f"{Exit.NOT_ALL.value} {Exit.RUN_AGAIN.value}"


def _crontabs() -> dict[str, tuple[dict[str, str], str]]:
    """Of the file and of what the README shows: what is set, and the command."""
    readme = re.search(r"```cron\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert readme
    found = {}
    for name, text, fields in (("file", CRONTAB.read_text(), 6), ("README", readme[1], 5)):
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
        (entry,) = (line for line in lines if line.startswith("*/15 "))
        found[name] = (variables, entry.split(maxsplit=fields)[fields])
    return found


@pytest.mark.parametrize("name", ["file", "README"])
@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 77, 127])
def test_cron_mails_the_logs_last_line_if_a_person_is_needed(tmp_path: Path, name: str, code: int) -> None:
    """Return what cron would mail. A stand-in for the command logs two lines and exits with this code."""
    variables, command = _crontabs()[name]
    folder, folder_of_command = tmp_path / "var", tmp_path / "bin"
    folder.mkdir()
    folder_of_command.mkdir()
    if code != 127:
        stand_in = folder_of_command / "metasync"
        stand_in.write_text(f'#!/bin/sh\necho "$@" >&2\necho last >&2\nexit {code}\n')
        stand_in.chmod(0o755)
    path = re.sub(r"^[^:]+/bin(?=:)", str(folder_of_command), variables["PATH"])
    assert path.startswith(f"{folder_of_command}:")
    assert "%" not in command  # which cron would take for a line break
    script = re.sub(r"cd \S+", f"cd {folder}", command)
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    log = (folder / "run.log").read_text().splitlines()
    if code in (0, 3, 75):
        assert done.stdout + done.stderr == ""
    else:
        assert done.stdout.splitlines()[-1] == log[-1]
        assert name == "README" or f"ended with {code}" in done.stdout
    assert code == 127 or re.fullmatch(r"run --drain --max-duration 1[24]m", log[0])


def test_cron_mails_what_the_command_itself_says_of_a_missing_key(tmp_path: Path) -> None:
    _, command = _crontabs()["file"]
    script = re.sub(r"cd \S+", f"cd {tmp_path}", command)
    environment = {"PATH": f"{METASYNC.parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[0] == "metasync ended with 2"
    assert done.stdout.splitlines()[1].startswith("metasync: OPENAI_API_KEY is not set")


def test_every_variable_that_is_named_is_a_setting() -> None:
    for file in (*SYSTEMD.iterdir(), CRONTAB):
        assert set(re.findall(r"\b(?:METASYNC|OPENAI)_[A-Z_]+", file.read_text())) <= set(FIELDS)
