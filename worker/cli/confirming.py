"""What cannot be undone is confirmed: by the count of what it is about, which is checked against the store."""

import sys

from worker.cli.output import tell


def confirmed(count: int, what: str) -> bool:
    """Have the person at the terminal type the count. To be called where no event loop runs: a signal ends it.

    Args:
        what: what is done to them, such as ``pending changes would be withdrawn``.
    """
    tell(f"{count:,} {what}")
    if sys.stdin is None or not sys.stdin.isatty():
        tell("say --yes, or answer at a terminal: nothing was done")
        return False
    tell(f"type {count} to go on:")
    typed = sys.stdin.readline().strip().replace(",", "")
    if typed != str(count):
        tell("that is not the count: nothing was done")
    return typed == str(count)


def grown(now: int, count: int) -> str | None:
    """Why it is not done after all: there is more than what was confirmed.

    Less is no reason: somebody else has dealt with the others.
    """
    if now <= count:
        return None
    return f"there are {now:,} by now, and {count:,} were shown: nothing was done; look again"
