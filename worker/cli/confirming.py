"""Confirm actions that cannot be undone: the user types the count, which is then checked against the store."""

import sys

from worker.cli.output import tell


def confirmed(count: int, what: str) -> bool:
    """Ask the user at the terminal to type the count. Call it outside an event loop, so that a signal ends it.

    Args:
        what: the consequence, such as ``pending changes would be withdrawn``.
    """
    tell(f"{count:,} {what}")
    if sys.stdin is None or not sys.stdin.isatty():
        tell("nothing was done: use --yes, or answer at a terminal")
        return False
    tell(f"type {count} to continue:")
    typed = sys.stdin.readline().strip().replace(",", "")
    if typed != str(count):
        tell("that is not the count: nothing was done")
    return typed == str(count)


def grown(now: int, count: int) -> str | None:
    """Return why the action is refused after all: there is more now than was confirmed. Else None.

    Less is no reason: another process has dealt with the rest.
    """
    if now <= count:
        return None
    return f"nothing was done: {count:,} were shown, but there are {now:,} now; look again"
