"""Check Python and the libraries: whether they are installed and new enough."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from worker.cli.checkup.check import Check, failure, ok
from worker.cli.version import commit, libraries, python, sqlite

_OLDEST_PYTHON = (3, 11)


def check_software() -> Iterator[Check]:
    """Check the interpreter, and each library that is required or installed for an extra."""
    if sys.version_info < _OLDEST_PYTHON:
        yield failure("python", python(), "install Python 3.11 or newer, and metasync into it")
    else:
        yield ok("python", python())
    yield _libraries()


def _libraries() -> Check:
    try:
        declared = list(libraries())
        found = [f"metasync {version('metasync')} (commit {commit() or 'unknown'})", f"SQLite {sqlite()}"]
    except PackageNotFoundError:
        return failure("libraries", "metasync is not installed: it runs from a folder", "pip install . in that folder")
    wrong = []
    for library in declared:
        if library.installed is None:
            if not library.optional:
                wrong.append(f"{library.name} is missing")
            continue
        found.append(f"{library.name} {library.installed}")
        if _numbers(library.installed) < _numbers(library.floor):
            wrong.append(f"{library.name} {library.installed} is older than {library.floor}")
    if wrong:
        return failure("libraries", "; ".join(wrong), "run `pip install --upgrade .` in metasync's folder")
    return ok("libraries", ", ".join(found))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])
