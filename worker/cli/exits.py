"""Exit codes, as in sysexits.h where it has a fitting one; scripts depend on them."""

from enum import IntEnum
from typing import Self


class Exit(IntEnum):
    """An exit code of the command."""

    meaning: str  # Markdown, for help and documents

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make an exit code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "all that was due is done"
    INTERNAL_ERROR = 1, "internal error, or standard output cannot be written; of `demo`: a check failed"
    USAGE = 2, "usage or configuration: nothing was changed, and waiting will not help"
    NOT_ALL = (
        3,
        (
            "done, but this run made dead letters, lines were refused, changes waited for were withdrawn, or a dead "
            "letter or batch that was named is not there; "
            "of `pull` and `diff`: something differs, is missing or cannot be read; of `doctor`: a failure was found"
        ),
    )
    RUN_AGAIN = (
        75,
        (
            "not finished, run again: an outage, the store, a pause, a wait, failing changes, changes in flight, "
            "`--max-duration`, `--timeout`, a signal"
        ),
    )
    HALTED = 77, "halted until a person acts: key, permission, quota, URL, settings; the queue is kept"
    INTERRUPTED = (
        130,
        (
            "Ctrl-C; of a worker, `enqueue`, `apply`, `batch wait`, a withdrawal, `dead retry` and `dead purge`, "
            "the second"
        ),
    )
