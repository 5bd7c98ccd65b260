"""`make audit` tells a vulnerable package from an unavailable service. A stand-in plays pip-audit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = {"name": "yarl", "version": "1.25.1", "vulns": []}
HOLE = {"id": "CVE-2026-1", "fix_versions": ["9.9"], "aliases": [], "description": "told at length"}
VULNERABLE = {"name": "requests", "version": "2.34.2", "vulns": [HOLE]}
UNKNOWN = {"name": "shtab", "skip_reason": "Dependency not found on PyPI and could not be audited: shtab (1.13.0)"}
NO_NETWORK = "Traceback (most recent call last):\nrequests.exceptions.ConnectionError: Failed to resolve 'api.osv.dev'"


def _audit(folder: Path, *flags: str, **services: object) -> "subprocess.CompletedProcess[str]":
    """Run it over two locks, with what pip-audit finds by each service: dependencies, or what it dies of."""
    stand_in = folder / "pip-audit"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, sys\nfound = json.loads({json.dumps(json.dumps(services))})[sys.argv[-1]]\n"
        "if isinstance(found, str):\n    sys.exit(found)\n"
        "print(json.dumps({'dependencies': found, 'fixes': []}))\n"
        "sys.exit(any(one.get('vulns') for one in found))\n"
    )
    stand_in.chmod(0o755)
    words = [sys.executable, str(ROOT / "deploy" / "audit.py"), str(stand_in), *flags, "run.txt", "dev.txt"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_packages_without_known_holes_are_good(tmp_path: Path) -> None:
    done = _audit(tmp_path, pypi=[GOOD])
    assert done.returncode == 0
    assert done.stdout == "run.txt: no known vulnerability\ndev.txt: no known vulnerability\n"


def test_a_vulnerable_package_is_named_with_what_mends_it(tmp_path: Path) -> None:
    done = _audit(tmp_path, pypi=[GOOD, VULNERABLE])
    assert done.returncode == 1
    assert "requests 2.34.2: CVE-2026-1, mended in 9.9" in done.stdout


def test_a_package_that_alone_is_unknown_is_named(tmp_path: Path) -> None:
    done = _audit(tmp_path, pypi=[GOOD, UNKNOWN])
    assert done.returncode == 1
    assert "shtab: pypi does not know it" in done.stdout


@pytest.mark.parametrize("nothing", [[UNKNOWN], NO_NETWORK], ids=["an index without advisories", "no network"])
def test_where_no_advisories_can_be_had_the_locks_are_skipped_by_name(tmp_path: Path, nothing: object) -> None:
    done = _audit(tmp_path, pypi=nothing, osv=NO_NETWORK)
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: run.txt, dev.txt: no advisories can be had here (pypi")
    assert "api.osv.dev" in done.stdout
    assert _audit(tmp_path, "--required", pypi=nothing, osv=NO_NETWORK).returncode == 2


@pytest.mark.parametrize("nothing", [[UNKNOWN], NO_NETWORK])
def test_the_second_service_is_asked_where_the_first_says_nothing(tmp_path: Path, nothing: object) -> None:
    done = _audit(tmp_path, pypi=nothing, osv=[VULNERABLE])
    assert done.returncode == 1
    assert "CVE-2026-1" in done.stdout


def test_any_other_failure_of_pip_audit_is_no_skip(tmp_path: Path) -> None:
    done = _audit(tmp_path, pypi="ERROR:pip_audit._cli:requirement without a hash")
    assert done.returncode == 1
    assert "requirement without a hash" in done.stderr


def test_every_lock_is_looked_at_and_holds_hashes_alone() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "$(wildcard requirements/*.txt)" in makefile
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert f"--output-file requirements/{lock.name}\n" in makefile, "`make lock` does not write it"
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", lock.read_text(), re.MULTILINE)
        assert "://" not in lock.read_text()
