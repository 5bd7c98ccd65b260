"""Python and the libraries: which there are, and whether they are new enough."""

import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import apsw

from worker.cli.checkup.check import Check, failure, ok

_REQUIRED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*>=\s*(?P<floor>[0-9.]+)\s*(?:;(?P<marker>.*))?")
_OLDEST_PYTHON = (3, 11)


def check_software() -> Iterator[Check]:
    """Look at the interpreter, and at each library that is required, or installed for an extra."""
    python = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"
    if sys.version_info < _OLDEST_PYTHON:
        yield failure("python", python, "install Python 3.11 or newer, and metasync into it")
    else:
        yield ok("python", python)
    yield _libraries()


def _libraries() -> Check:
    try:
        required = requires("metasync") or []
        found = [f"metasync {version('metasync')}"]
    except PackageNotFoundError:
        return failure("libraries", "metasync is not installed: it runs from a folder", "pip install . in that folder")
    found.append(f"SQLite {apsw.sqlite_lib_version()}")
    wrong = []
    for requirement in required:
        match = _REQUIRED.fullmatch(requirement.strip())
        if match is None:
            continue
        name, floor = match["name"], match["floor"]
        try:
            there = version(name)
        except PackageNotFoundError:
            if not match["marker"]:  # else it is for an extra, or for another system
                wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {there}")
        if _numbers(there) < _numbers(floor):
            wrong.append(f"{name} {there} is older than {floor}")
    if wrong:
        return failure(
            "libraries", "; ".join(wrong), "have pip install all of it anew, from its folder: pip install --upgrade ."
        )
    return ok("libraries", ", ".join(found))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])
