"""The event loop that a command's coroutine runs on, and what a signal does to it."""

import asyncio
from collections.abc import Callable, Coroutine
from signal import SIGINT, Signals
from typing import Any, TypeVar

from worker.cli import signals

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run it to its end. Where it handles no signals itself, the first one cancels it.

    Raises:
        Stopped: by a signal, after all that was to be closed is closed. What threads are at is not waited for: one may
            be reading from a terminal.
    """
    runner = asyncio.Runner(loop_factory=make_loop)
    try:
        result = runner.run(_until_signalled(main))
    except signals.Stopped:
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    signals.catch()  # closing a loop undoes what was set
    return result


async def _until_signalled(main: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 -- this runs in it
    first: signals.Stopped | None = None

    def stop(number: Signals) -> None:
        nonlocal first
        if first is None or number is SIGINT:  # who presses Ctrl-C again does not want to wait for what is being closed
            first = first or signals.Stopped(number)
            task.cancel()

    with signals.handled(stop):
        for number in signals.caught():
            loop.add_signal_handler(number, signals.tell, number)
        if (swallowed := signals.raised()) is not None:
            main.close()
            raise swallowed  # by a library that was being imported
        try:
            return await main
        except asyncio.CancelledError:
            if first is None:
                raise
            raise first from None
        finally:
            signals.catch()
