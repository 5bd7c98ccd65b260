"""Print the `--json` object even if the settings or the queue are unusable: it comes with every exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from config.settings import ConfigurationError
from worker.cli.exits import Exit
from worker.cli.output import report_json
from worker.queue import QueueError, QueueUnavailable
from worker.temporary import NoRoom
from worker.threads import NoThread


def code_of(error: Exception) -> Exit:
    """Return the exit code for unusable settings, queue, temporary files or threads: does running again help?"""
    return Exit.RUN_AGAIN if isinstance(error, QueueUnavailable | NoRoom | NoThread) else Exit.USAGE


@contextmanager
def failing_as_json(failure: Callable[[str, Exit], Any], *, wanted: bool) -> Iterator[None]:
    """If `--json` is wanted, print its object even if the settings or the queue are unusable.

    Args:
        failure: makes the object from the error and the exit code.
    """
    try:
        yield
    except (ConfigurationError, QueueError, NoRoom, NoThread) as error:
        if wanted:
            report_json(failure(f"metasync: {error}", code_of(error)))
        raise
