"""Wait for slow input, until another thread ends the waiting."""

import os
import select
import time
from collections.abc import Callable


class Stopped(Exception):
    """Another thread ended the reading."""


class Patience:
    """Waits until there is input, or until another thread calls `stop`."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._stopped, self._stop = os.pipe()
        self._due_at: float | None = None
        self._when_due: Callable[[], object] | None = None

    def interrupt_at(self, monotonic_seconds: float | None, then: Callable[[], object] | None = None) -> None:
        """If the waiting lasts until that time, call `then` and wait on; None cancels this."""
        self._due_at, self._when_due = monotonic_seconds, then

    def wait(self, descriptor: int) -> None:
        """Return when there is input, or its end.

        Raises:
            Stopped: another thread ended the waiting.
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        while not poll.poll(self._rest_ms()):
            then = self._when_due
            self.interrupt_at(None)
            if then:
                then()
        self.check()

    def check(self) -> None:
        """Return if nothing ended the waiting.

        Raises:
            Stopped: another thread ended the waiting.
        """
        if self.is_stopped:
            raise Stopped

    def stop(self) -> None:
        """End this and every later wait; may be called from any thread."""
        if not self.is_stopped:
            self.is_stopped = True
            os.write(self._stop, b"!")

    def close(self) -> None:
        os.close(self._stopped)
        os.close(self._stop)

    def _rest_ms(self) -> float | None:
        return None if self._due_at is None else max(0.0, self._due_at - time.monotonic()) * 1_000


def wait(descriptor: int) -> None:
    """Return when there is input, or its end, and not before."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
