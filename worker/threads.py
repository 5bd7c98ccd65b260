"""Work in a thread of the event loop's, for what may block."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class NoThread(Exception):
    """The system starts no further thread; the sentence says why. That passes, as other processes end."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(
            f"a thread is needed ({error}): a limit of processes or of memory is reached, such as ulimit -u"
        )


def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
    """Begin the work in a thread, as `asyncio.to_thread` does.

    Raises:
        NoThread: at once, and the work is not done.
    """
    return begun(None, partial(work, *args, **kwargs))


def begun(threads: Executor | None, work: Callable[[], T]) -> "asyncio.Future[T]":
    """Begin the work in one of these threads, None for those of the event loop; raises as `in_thread` does."""
    context, is_given_up = copy_context(), False

    def run() -> T:
        if is_given_up:  # the work waits still, for one of the threads that run
            raise asyncio.CancelledError
        return context.run(work)

    try:
        return asyncio.get_running_loop().run_in_executor(threads, run)
    except RuntimeError as error:
        is_given_up = True
        raise NoThread(error) from None
