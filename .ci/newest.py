"""Print the newest Python here that this project promises to run on, if it is newer than the one that runs this.

Where there is none, print nothing but which one is here, to standard error, and exit with 1.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Where systems and version managers put them besides PATH: a folder, and what to look for in it.
PLACES = (
    (Path("/usr/local/bin"), "python3.{}"),
    (Path("/opt"), "*/bin/python3.{}"),
    (Path("/opt/hostedtoolcache/Python"), "*/*/bin/python3.{}"),
    (Path.home() / ".pyenv" / "versions", "*/bin/python3.{}"),
)


def works(path: Path, minor: int) -> bool:
    """Whether this is that version, and can make an environment: what stands in PATH may be an empty shell."""
    ask = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    try:
        return subprocess.run([path, "-c", ask], capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def main() -> int:
    """Look for it; gives the exit code."""
    in_path = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    promised = sorted(map(int, re.findall(r"Python :: 3\.(\d+)", PYPROJECT.read_text())), reverse=True)
    for minor in [each for each in promised if each > sys.version_info.minor]:
        found = [folder / f"python3.{minor}" for folder in in_path]
        found += [path for folder, pattern in PLACES for path in sorted(folder.glob(pattern.format(minor)))]
        if working := next((path for path in found if path.is_file() and works(path, minor)), None):
            print(working)
            return 0
    print(f"only Python 3.{sys.version_info.minor} is here", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
