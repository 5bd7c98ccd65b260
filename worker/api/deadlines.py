"""Time-outs of many calls with one timer: a timer for each call would cost more than the rest of the call."""

import asyncio
import math
from types import TracebackType
from typing import Self

_EARLY_SECONDS = 0.001  # uvloop's timers may fire so much too soon


class Deadlines:
    """The time-outs of calls in one event loop. They do what `asyncio.timeout` does, at a tenth of its cost."""

    __slots__ = ("_loop", "_running", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def __repr__(self) -> str:
        return f"<Deadlines [{len(self._running)} running]>"

    def within(self, seconds: float) -> "Deadline":
        """A context that the current task has to leave within so many seconds, or TimeoutError is raised."""
        return Deadline(self, self._loop.time() + seconds)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    def _begin(self, deadline: "Deadline") -> None:
        self._running[deadline] = None
        if deadline.at < self._timer_at:
            self._watch(deadline.at)

    def _end(self, deadline: "Deadline") -> None:
        self._running.pop(deadline, None)

    def _watch(self, at: float) -> None:
        self.close()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Cut off the calls whose time is over, and set the timer for the next deadline."""
        self._timer, self._timer_at = None, math.inf
        now = self._loop.time() + _EARLY_SECONDS
        for deadline in [each for each in self._running if each.at <= now]:
            del self._running[deadline]
            deadline.expire()
        if self._running:
            self._watch(min(each.at for each in self._running))


class Deadline:
    """A context for the task that enters it; see `Deadlines.within`."""

    __slots__ = ("_cancelling", "_deadlines", "_is_expired", "_task", "at")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        self._deadlines = deadlines
        self.at = at
        self._is_expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines._begin(self)  # noqa: SLF001 -- two halves of one thing
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines._end(self)  # noqa: SLF001 -- likewise
        if not self._is_expired or self._task is None:
            return
        # If the task was cancelled from outside, too, that cancellation wins.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task, since its time is over."""
        if self._task is not None:
            self._is_expired = True
            self._task.cancel()
