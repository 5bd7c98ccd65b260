"""Hears of what other processes write to the queue's file: every commit writes to SQLite's log."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def told_of_writes(log: Path, tell: Callable[[], None]) -> Iterator[None]:
    """Call this, once, as soon as anybody writes to the log; within an event loop.

    Where the system cannot tell, or has no watch left, nothing is heard, and whoever waits has to ask.

    Args:
        log: the file beside the database that ends with ``-wal``.
    """
    with ExitStack() as until_left:
        with suppress(OSError):
            _watch(log, tell, until_left)
        yield


def _watch(log: Path, tell: Callable[[], None], until_left: ExitStack) -> None:
    """Begin to listen.

    Raises:
        OSError: there is no log, or no watch left.
    """
    if sys.platform != "linux":
        return
    from asyncinotify import Inotify, Mask  # noqa: PLC0415 -- whoever enqueues does not wait for work

    loop, inotify = asyncio.get_running_loop(), until_left.enter_context(Inotify())
    inotify.add_watch(log, Mask.MODIFY | Mask.ONESHOT)

    def heard() -> None:
        loop.remove_reader(inotify.fd)
        tell()

    loop.add_reader(inotify.fd, heard)
    until_left.callback(loop.remove_reader, inotify.fd)
