"""Asks pip-audit whether locked packages have known vulnerabilities: `make audit`.

pip-audit ends with 0 where an index answers "not found" for every package, and with a traceback where there is no
network. Neither means that the packages are good; here both are said to be skipped.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SERVICES = ("pypi", "osv")  # in the order in which they are asked
_NO_NETWORK = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError")


class Unavailable(Exception):
    """A service has no advisories for us; the message says why."""


def audit(program: str, lock: Path, service: str) -> list[str]:
    """Give a line for each vulnerability, and for each package that the service does not know.

    Raises:
        Unavailable: the service cannot be reached, or knows none of the packages.
        RuntimeError: pip-audit failed otherwise; the message is what it said.
    """
    words = [program, "--requirement", str(lock), "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(  # noqa: S603 -- words of our own
        [*words, "--format", "json", "--vulnerability-service", service], capture_output=True, text=True, check=False
    )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        if any(name in done.stderr for name in _NO_NETWORK):
            raise Unavailable(f"{service}: {last[:200]}") from None
        raise RuntimeError(f"pip-audit failed for {lock.name}: {last[:500]}") from None
    unknown = [one["name"] for one in found if "skip_reason" in one]
    if found and len(unknown) == len(found):
        raise Unavailable(f"{service} knows none of the {len(found)} packages of {lock.name}")
    vulnerable = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
        for one in found
        for hole in one.get("vulns", ())
    ]
    return [*vulnerable, *(f"{name}: {service} does not know it" for name in unknown)]


def main(argv: Sequence[str]) -> int:
    """Return 0 where all is good or skipped, 1 where something was found, 2 where skipping was not allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="pip-audit")
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--required", action="store_true", help="end with 2 where no advisories can be had")
    arguments = parser.parse_args(argv)
    whys = []
    for service in _SERVICES:
        try:
            found = {lock: audit(arguments.program, lock, service) for lock in arguments.locks}
        except Unavailable as error:
            whys.append(str(error))
            continue
        for lock, lines in found.items():
            print(f"{lock.name}: {'; '.join(lines) or 'no known vulnerability'}")  # noqa: T201 -- a script that prints
        return int(any(found.values()))
    names = ", ".join(lock.name for lock in arguments.locks)
    print(f"skipped: {names}: no advisories can be had here ({'; '.join(whys)})")  # noqa: T201 -- likewise
    return 2 if arguments.required else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
