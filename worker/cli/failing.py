"""Settings or a queue that cannot be used, where `--json` is wanted: its object comes on every exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from config.settings import ConfigurationError
from worker.cli.exits import Exit
from worker.cli.output import report_json
from worker.queue import QueueError, QueueUnavailable


def code_of(error: Exception) -> Exit:
    """What it means that the settings or the queue could not be used: whether to run again helps."""
    return Exit.RUN_AGAIN if isinstance(error, QueueUnavailable) else Exit.USAGE


@contextmanager
def failing_as_json(failure: Callable[[str, Exit], Any], *, wanted: bool) -> Iterator[None]:
    """Where `--json` is wanted, print what it prints even if the settings or the queue cannot be used.

    Args:
        failure: makes the object out of the error and the exit code.
    """
    try:
        yield
    except (ConfigurationError, QueueError) as error:
        if wanted:
            report_json(failure(f"metasync: {error}", code_of(error)))
        raise
