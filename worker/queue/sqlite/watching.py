"""Notice commits of other processes: each one writes to SQLite's log."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def told_of_writes(log: Path, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once, as soon as any process writes to the log; within an event loop.

    If the system has no such watches, or none left, there is no call, and the caller must poll.

    Args:
        log: the ``-wal`` file beside the database.
    """
    with ExitStack() as until_left:
        with suppress(OSError):
            _watch(log, tell, until_left)
        yield


def _watch(log: Path, tell: Callable[[], None], until_left: ExitStack) -> None:
    """Begin to watch.

    Raises:
        OSError: there is no log, or no watch left.
    """
    if sys.platform != "linux":
        return
    from asyncinotify import Inotify, Mask  # noqa: PLC0415 -- producers do not need it

    loop, inotify = asyncio.get_running_loop(), until_left.enter_context(Inotify())
    inotify.add_watch(log, Mask.MODIFY | Mask.ONESHOT)

    def heard() -> None:
        loop.remove_reader(inotify.fd)
        tell()

    loop.add_reader(inotify.fd, heard)
    until_left.callback(loop.remove_reader, inotify.fd)
