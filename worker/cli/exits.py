"""Exit codes, after sysexits.h where it has one: people script against them."""

from enum import IntEnum


class Exit(IntEnum):
    """What the command's end means."""

    DONE = 0  # all that was due is done
    INTERNAL_ERROR = 1
    USAGE = 2  # usage or configuration: nothing was changed
    NOT_ALL = 3  # done, but this run made dead letters, or some lines were refused
    RUN_AGAIN = 75  # not finished: time was up, an outage, cut short by a signal
    HALTED = 77  # until somebody acts: key, permission, quota, wrong URL; the queue is kept
    INTERRUPTED = 130  # second Ctrl-C
