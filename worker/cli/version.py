"""`metasync --version`; with `-v` also commit, Python and libraries, for bug reports."""

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import worker
from worker.cli.exits import Exit
from worker.cli.output import say
from worker.commit import commit_of

_REQUIRED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*>=\s*(?P<floor>[0-9.]+)\s*(?:;(?P<marker>.*))?")


class Library(NamedTuple):
    """A library that metasync declares.

    Args:
        floor: the oldest version that works.
        installed: the installed version, if any.
        optional: whether it is for an extra or another system.
    """

    name: str
    floor: str
    installed: str | None
    optional: bool


@dataclass(frozen=True, slots=True)
class Version:
    """The arguments."""

    verbose: bool = False


def execute(arguments: Version) -> int:
    """Print the version."""
    say(f"metasync {version('metasync')}")
    if arguments.verbose:
        say(f"commit {commit() or 'unknown'}")
        say(python())
        for library in libraries():
            say(f"{library.name} {library.installed or 'not installed'}")
        say(f"SQLite {sqlite()}")
    return Exit.DONE


def commit() -> str | None:
    """Return the commit that this metasync was built from; None if not known."""
    return commit_of(Path(worker.__file__).resolve().parents[1])


def python() -> str:
    """Return the interpreter and the system."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"


def sqlite() -> str:
    """Return the version of apsw's SQLite."""
    import apsw  # noqa: PLC0415 -- `--version` works without libraries

    return apsw.sqlite_lib_version()


def libraries() -> Iterator[Library]:
    """Yield metasync's declared libraries, including those of extras.

    Raises:
        PackageNotFoundError: metasync itself is not installed: it runs from a folder.
    """
    for requirement in requires("metasync") or ():
        match = _REQUIRED.fullmatch(requirement.strip())
        if match is None:
            continue
        try:
            installed = version(match["name"])
        except PackageNotFoundError:
            installed = None
        yield Library(match["name"], match["floor"], installed, optional=bool(match["marker"]))
