"""Time-outs of many calls with one timer: a timer for each call would cost more than the rest of the call."""

import asyncio
import math
from types import TracebackType
from typing import Self

_EARLY_SECONDS = 0.001  # uvloop's timers may fire so much too soon


class Deadlines:
    """The time-outs of calls in one event loop. They do what `asyncio.timeout` does, at a tenth of its cost.

    `running` holds those that are not over, and `timer_at` is when the timer looks at them.
    """

    __slots__ = ("_timer", "loop", "running", "timer_at")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.timer_at = math.inf

    def __repr__(self) -> str:
        return f"<Deadlines [{len(self.running)} running]>"

    def within(self, seconds: float) -> "Deadline":
        """A context that the current task has to leave within so many seconds, or TimeoutError is raised."""
        return Deadline(self, self.loop.time() + seconds)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.timer_at = math.inf

    def watch(self, at: float) -> None:
        """Let the timer look at this moment."""
        self.close()
        self.timer_at = at
        self._timer = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        """Cut off the calls whose time is over, and set the timer for the next deadline."""
        self._timer, self.timer_at = None, math.inf
        now = self.loop.time() + _EARLY_SECONDS
        for deadline in [each for each in self.running if each.at <= now]:
            del self.running[deadline]
            deadline.expire()
        if self.running:
            self.watch(min(each.at for each in self.running))


class Deadline:
    """A context for the task that enters it; see `Deadlines.within`."""

    __slots__ = ("_cancelling", "_deadlines", "_is_expired", "_task", "at")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        self._deadlines = deadlines
        self.at = at
        self._is_expired = False

    def __enter__(self) -> Self:
        deadlines = self._deadlines
        task = asyncio.current_task(deadlines.loop)
        if task is None:
            raise RuntimeError("a deadline is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        deadlines.running[self] = None
        if self.at < deadlines.timer_at:
            deadlines.watch(self.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.running.pop(self, None)
        # If the task was cancelled from outside, too, that cancellation wins.
        if self._is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task, since its time is over."""
        self._is_expired = True
        self._task.cancel()
