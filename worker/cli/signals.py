"""The signals that end the command: caught from its first moment on, by every verb, and never by chance.

A process that is the first of its container gets no signal that it does not catch.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from worker.cli.exits import Exit

TYPE_CHECKING = False  # as type checkers understand it: importing typing takes long, and signals are to be caught
if TYPE_CHECKING:
    from typing import NoReturn

Handler = Callable[[signal.Signals], None]

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_handlers: list[Handler] = []
_raised: "list[Stopped]" = []


class Stopped(BaseException):
    """A signal ended the command while there was nothing to end in order, or after that was done."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def catch() -> None:
    """From here on, a signal raises `Stopped`; what is inherited as ignored, as by nohup, stays ignored."""
    sys.unraisablehook = _say_unraisable
    for number in caught():
        signal.signal(number, _raise)


def raised() -> "Stopped | None":
    """The first one, whatever became of it: a library that was being imported may have made another error of it."""
    return _raised[0] if _raised else None


def ignore() -> None:
    """All is done, and how it ended is known: Python takes a while to end, and would let a signal make it a failure."""
    for number in caught():
        signal.signal(number, signal.SIG_IGN)


def caught() -> tuple[signal.Signals, ...]:
    """Those that end the command: SIGTERM always, the others unless whoever started it has them ignored."""
    return tuple(n for n in _STOPPING if n is signal.SIGTERM or signal.getsignal(n) is not signal.SIG_IGN)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within a command's event loop: have a signal told to this instead of whoever had it before."""
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.remove(handler)


@contextmanager
def stopping(stop: Callable[[], object], last_words: Callable[[], str]) -> Iterator[None]:
    """Within a command's event loop: the first signal stops what runs, in order; the next ends the process at once.

    Args:
        last_words: what to say before the process ends at once.
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
    """End the process at once, whatever threads are at: one may wait for input, or write what nobody reads."""
    from config import sink  # noqa: PLC0415 -- signals are caught first

    sink.flush()
    os._exit(code)


def _say(words: str) -> None:
    from worker.cli import output  # noqa: PLC0415 -- likewise

    output.tell(words)


def tell(number: signal.Signals) -> None:
    """Tell the latest handler of the signal."""
    if _handlers:
        _handlers[-1](number)


def _say_unraisable(unraisable: "sys.UnraisableHookArgs", /) -> None:
    """Say what Python could only swallow; of a signal that came in the middle of a finalizer, `raised` tells."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


def _raise(number: int, _frame: FrameType | None) -> None:
    _raised.append(Stopped(signal.Signals(number)))
    raise _raised[-1]
