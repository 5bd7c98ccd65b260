"""The commit that this metasync was made from. The build runs this file by itself: it imports nothing of metasync."""

import os
import subprocess
from pathlib import Path

NOTE = "COMMIT"  # the file beside this one in which a build notes the commit
_SECONDS = 5.0


def commit_of(root: Path) -> str | None:
    """Say which commit the folder is at; None where neither a build has noted it nor git knows it.

    Args:
        root: the folder that holds the package ``worker``: a checkout, an unpacked archive, or site-packages.

    Returns:
        40 hexadecimal digits, with ``-dirty`` behind them where tracked files of a checkout have been changed.
    """
    try:
        return (root / "worker" / NOTE).read_text().strip() or None
    except OSError:
        pass
    if not (root / ".git").exists():  # site-packages may lie in another project's checkout
        return None
    words = ["git", "--no-optional-locks", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in git's hooks
    try:
        done = subprocess.run(  # noqa: S603 -- words of our own
            words, cwd=root, env=elsewhere, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
