"""Run a command's coroutine on an event loop that a signal ends."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from signal import SIGINT, Signals
from typing import Any, TypeVar

from worker.cli import signals

T = TypeVar("T")

_CLOSING_SECONDS = 3.0


def run(main: Coroutine[Any, Any, T], make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run the coroutine. If it does not handle signals itself, the first one cancels it.

    Raises:
        Stopped: a signal ended it, and everything is closed. Threads are not awaited: one may be reading from a
            terminal.
    """
    runner = asyncio.Runner(loop_factory=make_loop or asyncio.new_event_loop)
    try:
        result = runner.run(_until_signalled(main))
    except signals.Stopped:
        raise
    except BaseException:
        _close(runner)
        raise
    _close(runner)
    return result


def _close(runner: asyncio.Runner) -> None:
    """Close the loop, unless a thread of it does not end: one may ask a name server that says nothing."""

    def close() -> None:
        with suppress(RuntimeError):  # it starts a thread too
            runner.close()

    closing = threading.Thread(target=close, name="closing", daemon=True)
    with suppress(RuntimeError):  # no further thread may be started
        closing.start()
        closing.join(_CLOSING_SECONDS)
    if closing.ident is None or closing.is_alive():
        signals.wait_for_no_thread()


async def _until_signalled(main: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 -- this function runs in it
    first: signals.Stopped | None = None

    def stop(number: Signals) -> None:
        nonlocal first
        if first is None or number is SIGINT:  # a second Ctrl-C does not wait for cleanup
            first = first or signals.Stopped(number)
            task.cancel()

    with signals.handled(stop):
        for number in signals.caught():
            loop.add_signal_handler(number, signals.tell, number)
        if (swallowed := signals.raised()) is not None:
            main.close()
            raise swallowed  # by a library during its import
        try:
            return await main
        except asyncio.CancelledError:
            if first is None:
                raise
            raise first from None
        finally:
            for number in signals.caught():  # only this thread may do so, and another one closes the loop
                loop.remove_signal_handler(number)
            signals.catch()
