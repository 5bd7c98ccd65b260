"""The commit that this metasync was built from. The build runs this file alone, so it imports nothing of metasync."""

import os
import subprocess
from pathlib import Path

NOTE = "COMMIT"  # the file beside this one in which a build notes the commit
_SECONDS = 5.0


def commit_of(root: Path) -> str | None:
    """Return the folder's commit; None if no build noted one and git knows none.

    Args:
        root: the folder that holds the package ``worker``: a checkout, an unpacked archive, or site-packages.

    Returns:
        40 hexadecimal digits, followed by ``-dirty`` if tracked files of a checkout have changed.
    """
    try:
        return (root / "worker" / NOTE).read_text().strip() or None
    except OSError:
        pass
    if not (root / ".git").exists():  # site-packages may be inside another project's checkout
        return None
    words = ["git", "--no-optional-locks", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    # In git's hooks, GIT_* variables point to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 -- constant arguments
            words, cwd=root, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
