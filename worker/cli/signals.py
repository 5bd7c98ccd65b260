"""Signals that end the command: every verb catches them from the first moment on.

Process 1 of a container receives only the signals that it catches.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from worker.cli.exits import Exit

TYPE_CHECKING = False  # type checkers know this name; importing typing would delay the signal handlers
if TYPE_CHECKING:
    from typing import NoReturn

Handler = Callable[[signal.Signals], None]

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_handlers: list[Handler] = []
_raised: "list[Stopped]" = []
_is_stuck = False


class Stopped(BaseException):
    """A signal ended the command; nothing is left to clean up."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def catch() -> None:
    """Let signals raise `Stopped` from now on; inherited ignored ones, as of nohup, stay ignored."""
    sys.unraisablehook = _say_unraisable
    for number in caught():
        signal.signal(number, _raise)


def raised() -> "Stopped | None":
    """Return the first signal's exception, even if a library turned it into another error during its import."""
    return _raised[0] if _raised else None


def ignore() -> None:
    """Ignore signals once the exit code is known: during Python's shutdown they would turn it into a failure."""
    for number in caught():
        signal.signal(number, signal.SIG_IGN)


def caught() -> tuple[signal.Signals, ...]:
    """Return the signals that end the command: SIGTERM, and others that the parent process does not ignore."""
    return tuple(n for n in _STOPPING if n is signal.SIGTERM or signal.getsignal(n) is not signal.SIG_IGN)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within a command's event loop, send signals to this handler instead of the previous one."""
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.remove(handler)


@contextmanager
def stopping(stop: Callable[[], object], last_words: Callable[[], str]) -> Iterator[None]:
    """Within a command's event loop, let the first signal stop the work in order, and the next end the process.

    Args:
        last_words: the message before the process ends at once.
    """
    is_stopping = False

    def handle(_: signal.Signals) -> None:
        nonlocal is_stopping
        if is_stopping:
            _say(last_words())
            leave()
        is_stopping = True
        stop()

    with handled(handle):
        yield


def leave(code: int = Exit.INTERRUPTED) -> "NoReturn":
    """End the process without waiting for threads: one may wait for input, or be stuck writing."""
    from config import sink  # noqa: PLC0415 -- signals are caught first

    sink.flush()
    os._exit(code)


def wait_for_no_thread() -> None:
    """Remember that a thread does not end, so that the process has to end without it; see `is_stuck`."""
    global _is_stuck  # noqa: PLW0603 -- the state of the process
    _is_stuck = True


def is_stuck() -> bool:
    """Whether the process would wait for a thread at its end."""
    return _is_stuck


def _say(words: str) -> None:
    from worker.cli import output  # noqa: PLC0415 -- as above

    output.tell(words)


def tell(number: signal.Signals) -> None:
    """Pass the signal to the latest handler."""
    if _handlers:
        _handlers[-1](number)


def _say_unraisable(unraisable: "sys.UnraisableHookArgs", /) -> None:
    """Report exceptions that Python swallows; a signal during a finalizer is found by `raised`."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


def _raise(number: int, _frame: FrameType | None) -> None:
    _raised.append(Stopped(signal.Signals(number)))
    raise _raised[-1]
